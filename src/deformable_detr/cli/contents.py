"""What an address or standard input holds: the bytes of an image, or an open video."""

import io
import logging
import sys
import tempfile
from functools import partial
from http.client import HTTPException
from pathlib import PurePosixPath
from typing import cast
from urllib.parse import unquote, urlsplit

from deformable_detr.addresses import AddressError, copy, open_address, within
from deformable_detr.cli.inputs import PREFIX
from deformable_detr.images import begins_as_image

MAX_IMAGE_BYTES = 256 * 2**20
IMAGE_SECONDS = 120.0
MAX_VIDEO_BYTES = 8 * 2**30     # on the disk, while the video is read
VIDEO_SECONDS = 3600.0
LONGEST_NAME = 100              # letters
NOTED_BYTES = 32 * 2**20        # of a video, from which a line says that it is fetched

logger = logging.getLogger(__name__)


def address_content(address: str) -> bytes | io.BufferedIOBase:
    """What an address holds: the bytes of an image, or an open video, which the caller closes. Raises AddressError.

    A video whose length is known is fetched whole: reading it may take longer than its server waits.
    """
    answer = open_address(address)
    try:
        if answer.kind.startswith("text/"):
            raise ValueError(f"expected an image or a video, got {answer.kind}")
        return _content(answer.body, address, answer.length, IMAGE_SECONDS, VIDEO_SECONDS)
    except (OSError, ValueError, HTTPException) as error:
        if not isinstance(error, TimeoutError):
            answer.body.close()
        raise AddressError(f"{address}: {str(error) or 'nothing came for too long'}") from error


def standard_input() -> bytes | io.BufferedIOBase:
    """What standard input holds: the bytes of an image, or an open video. Raises ValueError."""
    try:
        if sys.stdin is None or sys.stdin.isatty():
            raise ValueError(f"expected an image or a video, got {'nothing' if sys.stdin is None else 'a terminal'}")
        return _content(cast("io.BufferedIOBase", sys.stdin.buffer), "-", None)
    except (OSError, ValueError) as error:
        raise ValueError(f"-: {error}") from error


def name_at(address: str) -> str:
    """A name for a file, from the last part of an address."""
    parts = urlsplit(address)
    last = PurePosixPath(unquote(parts.path)).name or parts.hostname or ""
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in last).lstrip(".")
    return safe[-LONGEST_NAME:] or "image"


def _content(stream: io.BufferedIOBase, name: str, length: int | None, image_seconds: float | None = None,
             video_seconds: float | None = None) -> bytes | io.BufferedIOBase:
    start = _start(stream) if image_seconds is None else within(image_seconds, partial(_start, stream))
    if not start:
        raise ValueError("nothing came")
    if begins_as_image(start):
        with io.BytesIO() as image:
            _copy_all(start, stream, image, length, MAX_IMAGE_BYTES, image_seconds)
            return image.getvalue()
    if length is None and start[4:8] != b"ftyp":        # an MP4 may have its index at its end
        return io.BufferedReader(_Resumed(start, stream))
    if (length or 0) > NOTED_BYTES:
        logger.info("%s: fetching %d MB", name, (length or 0) // 2**20)
    video = cast("io.BufferedIOBase", tempfile.TemporaryFile())  # noqa: SIM115
    try:
        _copy_all(start, stream, video, length, MAX_VIDEO_BYTES, video_seconds)
        video.seek(0)
    except (OSError, ValueError):
        video.close()
        raise
    return video


def _start(stream: io.BufferedIOBase) -> bytes:
    """The first bytes; a pipe gives fewer at a time than asked for."""
    start = b""
    while len(start) < PREFIX and (piece := stream.read(PREFIX - len(start))):
        start += piece
    return start


def _copy_all(start: bytes, stream: io.BufferedIOBase, target: io.BufferedIOBase, length: int | None, max_bytes: int,
              seconds: float | None) -> None:
    if (length or 0) > max_bytes:
        raise ValueError(f"too large: expected at most {max_bytes // 2**20} MB, got {(length or 0) // 2**20}")
    target.write(start)
    size = len(start) + copy(stream, target, max_bytes - len(start), seconds)
    if length is not None and size < length:
        raise ValueError(f"the connection ended after {size} of {length} bytes")
    stream.close()


class _Resumed(io.RawIOBase):
    """A stream whose start has been read before."""

    def __init__(self, start: bytes, rest: io.BufferedIOBase) -> None:
        self._start, self._rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:     # pyright: ignore[reportIncompatibleMethodOverride]
        piece = self._start[:len(buffer)] or _some(self._rest, len(buffer))
        self._start = self._start[len(piece):]
        buffer[:len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._rest.close()
        super().close()


def _some(stream: io.BufferedIOBase, size: int) -> bytes:
    """At most `size` bytes, as soon as there are some."""
    try:
        return stream.read1(size)
    except HTTPException as error:
        raise OSError(f"the connection ended ({error})") from error
