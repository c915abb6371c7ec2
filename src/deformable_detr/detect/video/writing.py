"""Drawn frames as an MP4."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import PIL.Image

from deformable_detr.detect.video.errors import VideoError, import_av, reason_of
from deformable_detr.marks import writing_marked_video
from deformable_detr.text import printable

TICKS = 90_000      # a second: fine enough for any rate of frames
ENCODERS = {"libx264": {"preset": "veryfast", "crf": "23"}, "mpeg4": {"qscale": "3"}}       # the first that there is


@contextmanager
def writing_video(path: Path, rate: Fraction) -> "Iterator[VideoWriter]":
    """A writer for an MP4 with our mark, of about `rate` frames a second: whole, or if the block fails, not at all.

    Raises VideoError, which names `path`.
    """
    av = import_av(str(path))
    try:
        with writing_marked_video(path) as file:
            writer = VideoWriter(file, rate)
            try:
                yield writer
                writer.finish()
            finally:
                writer.close()
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{printable(str(path))}: cannot be written ({reason_of(error)})") from error


class VideoWriter:
    """Writes frames at their times. Those of another size than the first are scaled to it."""

    def __init__(self, file: BinaryIO, rate: Fraction) -> None:
        self._av = import_av("video")
        self._container = self._av.open(file, "w", format="mp4")
        self._rate = rate
        self._stream: Any = None
        self._last = -1.0       # ticks

    def write(self, image: PIL.Image.Image, seconds: float | None) -> None:
        """Add a frame that is shown from `seconds` on, or just after the one before."""
        if self._stream is None:
            self._stream = self._start(image)
        even = image.crop((0, 0, image.width + image.width % 2, image.height + image.height % 2))   # as the codec needs
        frame = self._av.VideoFrame.from_image(even)
        if frame.width != self._stream.width or frame.height != self._stream.height:
            frame = frame.reformat(self._stream.width, self._stream.height)
        next_tick = self._last + (TICKS / self._rate if self._last >= 0 else 1)
        self._last = max(self._last + 1, round(next_tick if seconds is None else seconds * TICKS))
        frame.pts, frame.time_base = int(self._last), Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds, and the end of the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def close(self) -> None:
        """Give up what is not written, if `finish` has not been called."""
        with suppress(self._av.FFmpegError, OSError):
            self._container.close()

    def _start(self, image: PIL.Image.Image) -> Any:
        encoder = next(name for name in ENCODERS if name in self._av.codecs_available)
        stream = self._container.add_stream(encoder, rate=self._rate, options=dict(ENCODERS[encoder]))
        stream.width, stream.height = image.width + image.width % 2, image.height + image.height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        return stream
