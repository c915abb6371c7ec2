"""The images of a split, packed into a few arrays.

Merely reading a Python object changes its reference count, and a forked process then gets its own copy of that memory.
Half a million images as objects would be copied into every worker, and would take seconds to send to one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import overload

import numpy as np
from jaxtyping import Int64

ImageSize = tuple[int, int]   # (height, width); the one of detections.py would import torch


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One listed image; sizes are pixels."""

    id: int
    file_name: str
    width: int
    height: int

    @property
    def size(self) -> ImageSize:
        """(height, width)"""
        return self.height, self.width


@dataclass(frozen=True, eq=False)
class ImageList(Sequence[ImageRecord]):
    """Behaves like a tuple of P images, each made when it is asked for."""

    ids: Int64[np.ndarray, "P"]
    sizes: Int64[np.ndarray, "P 2"]                 # (height, width) in pixels
    starts: Int64[np.ndarray, "P+1"]                # the name of image i is names[starts[i]:starts[i + 1]]
    names: bytes = field(repr=False)                # of all files, in UTF-8, one after another

    @classmethod
    def of(cls, images: Iterable[ImageRecord]) -> "ImageList":
        """The images, packed."""
        every = list(images)
        names = [_encoded(image.file_name) for image in every]
        return cls(np.array([image.id for image in every], np.int64),
                   np.array([image.size for image in every], np.int64).reshape(-1, 2), _starts(names),
                   b"".join(names))

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, index: slice) -> "ImageList": ...

    def __getitem__(self, index: int | slice) -> "ImageRecord | ImageList":
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        number = range(len(self))[index]    # IndexError beyond; negative ones count from the end
        height, width = self.sizes[number].tolist()
        return ImageRecord(int(self.ids[number]), self._name(*self.starts[number:number + 2].tolist()), width, height)

    def __iter__(self) -> Iterator[ImageRecord]:
        for identity, name, (height, width) in zip(self.ids.tolist(), self.file_names(), self.sizes.tolist(),
                                                   strict=True):
            yield ImageRecord(identity, name, width, height)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImageList):
            return NotImplemented
        return self.names == other.names and all(map(np.array_equal, (self.ids, self.sizes, self.starts),
                                                     (other.ids, other.sizes, other.starts)))

    __hash__ = None     # type: ignore[assignment]

    def file_names(self) -> Iterator[str]:
        """The name of every file."""
        return (self._name(start, end) for start, end in pairwise(self.starts.tolist()))

    def file_name_of(self, identity: int) -> str | None:
        """The file name of the image with this id, if there is one."""
        found = np.flatnonzero(self.ids == identity)
        return self[int(found[0])].file_name if len(found) else None

    def distinct_sizes(self) -> tuple[list[ImageSize], Int64[np.ndarray, "P"]]:
        """The distinct sizes, (height, width), which are few, and which of them each image has."""
        sizes, which = np.unique(self.sizes, axis=0, return_inverse=True)
        return [(height, width) for height, width in sizes.tolist()], which.reshape(-1)

    def subset(self, chosen: Sequence[int] | Int64[np.ndarray, "chosen"]) -> "ImageList":
        """The images of these indices, in this order."""
        rows = np.asarray(chosen, np.int64)
        bounds = zip(self.starts[rows].tolist(), self.starts[rows + 1].tolist(), strict=True)
        names = [self.names[start:end] for start, end in bounds]
        return ImageList(self.ids[rows], self.sizes[rows], _starts(names), b"".join(names))

    def _name(self, start: int, end: int) -> str:
        return self.names[start:end].decode("utf-8", "surrogatepass")


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")    # a name on a disk can be any bytes


def _starts(names: Sequence[bytes]) -> Int64[np.ndarray, "starts"]:
    return np.fromiter(accumulate(map(len, names), initial=0), np.int64, len(names) + 1)
