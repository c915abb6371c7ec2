"""One after another, what there is to find objects in: images, and frames of videos."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from deformable_detr.addresses import AddressError
from deformable_detr.cli.contents import address_content, name_at, standard_input
from deformable_detr.cli.inputs import Input
from deformable_detr.detect.video import BrokenFrame, Video, VideoError
from deformable_detr.images import ImageError, num_frames, open_image, read_image

Read = Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class Clip:
    """A video whose frames are items."""

    path: Path          # from whose name that of its drawing is made
    rate: Fraction      # frames a second, of those that are items


@dataclass(frozen=True)
class Item:
    """An image, a frame, or what is wrong with one."""

    name: str                   # of the file or address
    path: Path | None = None    # from whose name that of its drawing is made
    read: Read | None = None    # None if there is a problem
    problem: str | None = None  # one line, which begins with the name
    clip: Clip | None = None    # of a frame
    number: int = 0
    seconds: float | None = None

    @property
    def place(self) -> dict[str, Any]:
        """Where in a video, for JSON."""
        seconds = None if self.seconds is None else round(self.seconds, 3)
        return {} if self.clip is None else {"frame": self.number, "seconds": seconds}

    @property
    def is_file(self) -> bool:
        """Whether it is an image file on this machine, at `path`."""
        return self.clip is None and str(self.path) == self.name

    @property
    def further_frames(self) -> int:
        """Pages or frames of an image file after the first, which is the one that is used; known once it is read."""
        return self.read.further_frames if isinstance(self.read, ReadImage) else 0


class ReadImage:
    """Reads an image file, or the bytes of one from `name`; then it holds them no longer."""

    def __init__(self, source: Path | bytes, name: str) -> None:
        self.further_frames = 0
        self._source: Path | bytes | None = source
        self._name = name

    def __call__(self) -> np.ndarray:
        source = self._source
        assert source is not None
        try:
            pixels = read_image(source)
            with open_image(source) as image:
                self.further_frames = num_frames(image) - 1
        except ImageError as error:
            raise ImageError(f"{self._name}: {error.reason_for(source)}") from None
        self._source = None
        return pixels


def items_of(inputs: Sequence[Input], every: int) -> Iterator[Item]:
    """Each image, and every `every`-th frame of each video, in order; addresses are asked when it is their turn."""
    for entry in inputs:
        try:
            yield from _items_of(entry, every)
        except (AddressError, VideoError, ValueError) as error:
            yield Item(entry.name, problem=str(error))


def _items_of(entry: Input, every: int) -> Iterator[Item]:
    if entry.problem is not None:
        yield Item(entry.name, problem=entry.problem)
    elif entry.kind == "image":
        assert entry.path is not None
        yield Item(entry.name, entry.path, ReadImage(entry.path, entry.name))
    elif entry.kind == "video":
        assert entry.path is not None
        yield from _frames(entry.name, entry.path, entry.path, every)
    elif entry.kind == "stream":
        yield from _frames(entry.name, Path(urlsplit(entry.source).hostname or "stream"), entry.source, every)
    else:
        yield from _content_items(entry, every)


def _content_items(entry: Input, every: int) -> Iterator[Item]:
    """Of an address or standard input."""
    is_remote = entry.kind == "address"
    content = address_content(entry.source) if is_remote else standard_input()
    path = Path(name_at(entry.source) if is_remote else "stdin")
    if isinstance(content, bytes):
        yield Item(entry.name, path, ReadImage(content, entry.name))
    else:
        with closing(content):
            yield from _frames(entry.name, path, content, every)


def _frames(name: str, path: Path, source: Path | str | io.BufferedIOBase, every: int) -> Iterator[Item]:
    with Video(source, name, every) as video:
        clip = Clip(path, video.rate / every)
        for frame in video:
            here = partial(Item, name, path, clip=clip, number=frame.number, seconds=frame.seconds)
            if isinstance(frame, BrokenFrame):
                yield here(problem=f"{name}: frame {frame.number}: {frame.reason}")
            else:
                yield here(read=frame.read)
