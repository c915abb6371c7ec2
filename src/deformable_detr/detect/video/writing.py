"""Drawn frames as an MP4."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import PIL.Image

from deformable_detr.detect.video.errors import VideoError, import_av, reason_of
from deformable_detr.marks import writing_marked_video
from deformable_detr.text import printable

TICKS = 30_000      # a second: for all usual rates, and MPEG-4 counts no finer than 65 535
ENCODERS = {"libx264": {"preset": "veryfast", "crf": "23"}, "mpeg4": {"qscale": "3"}}       # the first that there is


@contextmanager
def writing_video(path: Path, rate: Fraction) -> "Iterator[VideoWriter]":
    """A writer for an MP4 with our mark, of about `rate` frames a second: whole, or if the block fails, not at all.

    Raises VideoError, which names `path`.
    """
    try:
        with writing_marked_video(path) as file:
            writer = VideoWriter(file, rate, str(path))
            try:
                yield writer
                writer.finish()
            finally:
                writer.close()
    except OSError as error:
        raise _error(path, error) from error


class VideoWriter:
    """Writes frames at their times. Those of another size than the first are scaled to it.

    Methods raise VideoError, which names `name`, or the OSError of the file.
    """

    def __init__(self, file: io.BufferedIOBase, rate: Fraction, name: str) -> None:
        self._av = import_av(name)
        self._container = self._av.open(file, "w", format="mp4")
        self._name, self._rate = name, rate
        self._stream: Any = None
        self._last: int | None = None       # ticks

    def write(self, image: PIL.Image.Image, seconds: float | None) -> None:
        """Add a frame that is shown from `seconds` on, or just after the one before."""
        even = image.crop((0, 0, image.width + image.width % 2, image.height + image.height % 2))   # as the codec needs
        with self._one_error():
            self._stream = self._stream or self._start(even.size)
            frame = self._av.VideoFrame.from_image(even)
            if even.size != (self._stream.width, self._stream.height):
                frame = frame.reformat(self._stream.width, self._stream.height)
            frame.pts, frame.time_base = self._tick(seconds), Fraction(1, TICKS)
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds, and the end of the file."""
        with self._one_error():
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()

    def close(self) -> None:
        """Give up what is not written, if `finish` has not been called."""
        with suppress(self._av.FFmpegError, OSError):
            self._container.close()

    def _start(self, size: tuple[int, int]) -> Any:
        encoder = next(name for name in ENCODERS if name in self._av.codecs_available)
        stream = self._container.add_stream(encoder, rate=self._rate, options=dict(ENCODERS[encoder]))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        return stream

    def _tick(self, seconds: float | None) -> int:
        """When the next frame is shown: later than the one before."""
        if self._last is None:
            self._last = max(0, round((seconds or 0) * TICKS))
        elif seconds is None:
            self._last += round(TICKS / self._rate)
        else:
            self._last = max(self._last + 1, round(seconds * TICKS))
        return self._last

    @contextmanager
    def _one_error(self) -> Iterator[None]:
        try:
            yield
        except self._av.FFmpegError as error:
            raise _error(self._name, error) from error


def _error(path: str | Path, error: Exception) -> VideoError:
    return VideoError(f"{printable(str(path))}: cannot be written ({reason_of(error)})")
