"""Videos, frame by frame: a file, an open file, or the address of a stream, decoded by FFmpeg through PyAV.

Videos are not trusted: only containers that name no other file are opened, the number of pixels is bounded, and
whatever is wrong is a VideoError, or a BrokenFrame where only that frame is.
"""

import heapq
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from deformable_detr.detect.video.errors import VideoError, import_av, reason_of
from deformable_detr.detect.video.streams import PROTOCOLS, is_stream, without_password
from deformable_detr.images import MAX_PIXELS
from deformable_detr.text import printable

if TYPE_CHECKING:
    import av

# No playlists: those of HLS, DASH and concat name other files, which FFmpeg would open.
CONTAINERS = ("asf", "av1", "avi", "flv", "gxf", "h264", "hevc", "ivf", "live_flv", "m4v", "matroska", "mjpeg", "mov",
              "mp4", "mpeg", "mpegts", "mpegvideo", "mpjpeg", "mxf", "nut", "obu", "ogg", "rm", "rtp", "rtsp", "sdp",
              "webm", "wtv", "yuv4mpegpipe")
SECONDS_WITHOUT_DATA = 20       # of a stream, after which it has ended
USUAL_RATE = Fraction(25)       # frames a second, of videos that do not say it
MAX_STREAMS = 64                # in a container, with those that begin later
LONGEST_SECONDS = 1e9           # what is later is damaged
MISSING_SECONDS = 0.5           # at the end, from which a video is truncated: players' rounding is less


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a video; its pixels are converted when `read` is called, in any thread."""

    number: int                 # in the video, from 0
    seconds: float | None       # from the video's start; None if it does not say
    _decoded: "av.VideoFrame"

    def read(self) -> UInt8[np.ndarray, "H W 3"]:
        """The frame as RGB, upright."""
        from av.video.reformatter import VideoReformatter

        pixels = VideoReformatter().reformat(self._decoded, format="rgb24", threads=1).to_ndarray()
        quarters = round(self._decoded.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, quarters))


@dataclass(frozen=True)
class BrokenFrame:
    """A frame that cannot be decoded."""

    number: int
    seconds: float | None
    reason: str


class Video:
    """A video, opened: iterating decodes every `every`-th frame, in order, with those in between that are broken.

    `source` is a path, the address of a stream such as "rtsp://camera/1", or an open binary file, which `name` names
    in messages. Raises VideoError if there is no video, and after the last frame if some are missing there.
    """

    def __init__(self, source: str | os.PathLike[str] | io.BufferedIOBase, name: str | None = None,
                 every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every: expected at least 1, got {every}")
        given = os.fspath(source) if isinstance(source, str | os.PathLike) else source
        self.name = name or (without_password(given) if isinstance(given, str) else "video")
        self.every = every
        self._av = import_av(self.name)
        self._container = self._open(given)
        try:
            self._stream = self._find_stream()
        except VideoError:
            self.close()
            raise

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, unless it was given open."""
        self._container.close()

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        return self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE

    @property
    def num_frames(self) -> int | None:
        """How many frames iterating yields, by what the file says; None if it does not."""
        return -(-self._stream.frames // self.every) or None

    def __iter__(self) -> Iterator[Frame | BrokenFrame]:
        number = 0
        end = 0.0
        for number, (seconds, decoded) in enumerate(self._in_order(), start=1):
            if isinstance(decoded, str):
                yield BrokenFrame(number - 1, seconds, decoded)
            elif (number - 1) % self.every == 0:
                yield Frame(number - 1, seconds, decoded)
            end = max(end, (seconds or 0) + float(1 / self.rate))
        if not number:
            raise self._error("no frames in it")
        length = self._seconds()
        if length is not None and length - end > MISSING_SECONDS:
            raise self._error(f"truncated: it ends after {end:.1f} of {length:.1f} seconds")

    def _in_order(self) -> "Iterator[tuple[float | None, av.VideoFrame | str]]":
        """The time of each frame, and what it is, or why it is none. A broken one takes its place by its time."""
        broken: list[tuple[float, str]] = []
        for packet in self._packets():
            seconds = self._since_start(packet.pts)
            try:
                decoded = packet.decode()
            except self._av.FFmpegError as error:
                heapq.heappush(broken, (seconds or 0.0, reason_of(error)))
                continue
            for frame in decoded:
                shown = self._since_start(frame.pts)
                while broken and (shown is None or broken[0][0] < shown):
                    yield heapq.heappop(broken)
                yield shown, self._checked(frame)
        while broken:
            yield heapq.heappop(broken)

    def _packets(self) -> "Iterator[av.Packet]":
        try:
            yield from self._container.demux(self._stream)
        except IndexError:      # PyAV's, before its last packet, where streams have begun in the middle of the file
            last = self._av.Packet()
            last.stream = self._stream
            yield last
        except (self._av.FFmpegError, OSError) as error:
            raise self._error(f"cannot be read to its end ({reason_of(error)})") from None

    def _checked(self, frame: "av.VideoFrame") -> "av.VideoFrame | str":
        if frame.is_corrupt:
            return "damaged"
        return frame if frame.width * frame.height <= MAX_PIXELS else "too many pixels"

    def _open(self, source: str | io.BufferedIOBase) -> Any:
        limits = {"format_whitelist": ",".join(CONTAINERS), "max_streams": str(MAX_STREAMS)}
        try:
            if is_stream(source):
                limits["protocol_whitelist"] = ",".join(PROTOCOLS)
            elif isinstance(source, str):
                if Path(source).stat().st_size == 0:
                    raise self._error("empty file")
                limits["protocol_whitelist"] = "file"
                source = f"file:{source}"       # whatever a name with a colon looks like
            return self._av.open(source, "r", options=limits, metadata_errors="replace",
                                 timeout=SECONDS_WITHOUT_DATA if is_stream(source) else None)
        except (self._av.InvalidDataError, self._av.ArgumentError, self._av.EOFError):
            reason = "not a video, truncated, or its format is not supported"
        except (self._av.FFmpegError, OSError) as error:
            reason = reason_of(error)
        raise self._error(reason)

    def _find_stream(self) -> Any:
        streams = self._container.streams.video
        if not streams:
            raise self._error("no video in it")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise self._error("its codec is not supported")
        if context.width * context.height > MAX_PIXELS:
            raise self._error("too many pixels")
        context.options = {"max_pixels": str(MAX_PIXELS)}
        return stream

    def _since_start(self, pts: int | None) -> float | None:
        """The seconds from the start of the video."""
        stream = self._stream
        if pts is None or stream.time_base is None:
            return None
        seconds = float((pts - (stream.start_time or 0)) * stream.time_base)
        return seconds if abs(seconds) < LONGEST_SECONDS else None

    def _seconds(self) -> float | None:
        """How long the video is by what the file says; None if it does not, or says only how long its sound is."""
        stream = self._stream
        if stream.frames and "mov" not in self._container.format.name.split(","):   # where some may be cut out
            return stream.frames / float(self.rate)
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        if self._container.duration is not None and len(self._container.streams) == 1:
            return self._container.duration / self._av.time_base
        return None

    def _error(self, reason: str) -> VideoError:
        return VideoError(f"{printable(self.name)}: {reason}")
