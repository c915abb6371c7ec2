"""What becomes of a video: its drawing, its tracks, and a line at its end."""

import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deformable_detr.cli.app import print_line, report_error
from deformable_detr.cli.items import Clip, Item
from deformable_detr.cli.outputs import Drawings
from deformable_detr.detect.video import Tracker, VideoError, VideoWriter
from deformable_detr.detect.video.writing import writing_video
from deformable_detr.text import printable

if TYPE_CHECKING:
    from deformable_detr.detections import Detections

SHOWN_RANGES = 10       # of broken frames in a line


class ClipReport:
    """Gathers the frames of one video, in order."""

    def __init__(self, name: str, clip: Clip, drawings: Drawings | None, tracker: Tracker | None,
                 prints: bool) -> None:
        self.name, self.clip = name, clip
        self.failed = False
        self.num_frames = 0
        self._drawings, self._tracker, self._prints = drawings, tracker, prints
        self._start = time.monotonic()
        self._found: Counter[str] = Counter()       # detections, or if they are tracked, tracks
        self._tracks: set[int] = set()
        self._broken: list[tuple[int, int]] = []    # first and last of neighbours
        self._reason = ""                           # of the first
        self._stack = ExitStack()
        self._writer: VideoWriter | None = None
        self._drawn: Path | None = None

    @property
    def rate(self) -> float:
        """Frames a second so far."""
        return self.num_frames / max(1e-9, time.monotonic() - self._start)

    def tracked(self, found: "Detections", item: Item) -> "Detections":
        """The detections of the next frame, with numbers for their objects if that was asked for."""
        return found if self._tracker is None else self._tracker.update(found, item.seconds)

    def add(self, found: "Detections", image: np.ndarray | None, item: Item) -> None:
        """Count and draw the detections of the next frame."""
        self.num_frames += 1
        for index, name in enumerate(found.names):
            track = -1 if found.tracks is None else int(found.tracks[index])
            if self._tracker is None or (track >= 0 and track not in self._tracks):
                self._found[name] += 1
                self._tracks.update({track} - {-1})
        if self._drawings is not None and image is not None:
            try:
                self._draw(found, image, item, self._drawings)
            except (VideoError, OSError) as error:
                self._give_up(error)

    def add_broken(self, item: Item, problem: str) -> None:
        """Keep a frame in which nothing could be found, for the line at the end."""
        self._reason = self._reason or problem.removeprefix(f"{self.name}: ").removeprefix(f"frame {item.number}: ")
        if self._broken and self._broken[-1][1] == item.number - 1:
            self._broken[-1] = (self._broken[-1][0], item.number)
        else:
            self._broken.append((item.number, item.number))

    def finish(self) -> None:
        """Write the end of the drawing, and say what was found."""
        try:
            self._stack.close()
        except (VideoError, OSError) as error:
            self._give_up(error)
        if self._broken:
            self.failed = True
            report_error(f"{self.name}: {self._broken_summary()}")
        if self._prints:
            found = ", ".join(f"{number} {name}" for name, number in self._found.most_common()) or "nothing found"
            tracked = "" if self._tracker is None else "tracked "
            drawn = "" if self._drawn is None else f" -> {self._drawn}"
            print_line(printable(f"{self.name}: {self.num_frames} frames, {self.rate:.1f} a second: {tracked}{found}"
                                 f"{drawn}"))

    def discard(self, error: BaseException) -> None:
        """Leave no half of a drawing."""
        with suppress(type(error), VideoError):
            self._stack.__exit__(type(error), error, error.__traceback__)

    def _draw(self, found: "Detections", image: np.ndarray, item: Item, drawings: Drawings) -> None:
        if self._writer is None:
            self._drawn = drawings.claim(self.clip.path, ".mp4")
            self._writer = self._stack.enter_context(writing_video(self._drawn, self.clip.rate))
        self._writer.write(found.draw(image), item.seconds)

    def _give_up(self, error: Exception) -> None:
        """Go on without a drawing."""
        self.failed = True
        report_error(f"{self.name}: {error}")
        self._drawings = self._drawn = self._writer = None
        self.discard(error)

    def _broken_summary(self) -> str:
        number = sum(last - first + 1 for first, last in self._broken)
        ranges = [str(first) if first == last else f"{first}-{last}" for first, last in self._broken]
        shown = ", ".join(ranges[:SHOWN_RANGES]) + (", ..." if len(ranges) > SHOWN_RANGES else "")
        return f"frames left out: {number} ({shown}): {self._reason}"
