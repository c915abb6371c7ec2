"""What a data set says, in the one form that every format becomes: names, pictures, and arrays of objects."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from deformable_detr.datasets.findings import DataError, Place
from deformable_detr.datasets.image_list import Picture, PictureList
from deformable_detr.images import PictureError, read_picture


@runtime_checkable
class PictureStore(Protocol):
    """Where pictures are kept."""

    def source(self, picture: Picture) -> Path | bytes:
        """The picture's file, or its bytes. Raises PictureError where they cannot be fetched."""
        ...

    def sources(self, pictures: Sequence[Picture]) -> Iterator[Path | bytes]:
        """All of them, in this order; empty bytes for those that cannot be fetched."""
        ...

    def place(self, picture: Picture) -> Place:
        """Where to look for the picture."""
        ...


@dataclass(frozen=True)
class PictureFolder:
    """Pictures as files under a folder."""

    folder: Path

    def source(self, picture: Picture) -> Path:
        """The picture's file."""
        return self.folder / picture.file_name

    def sources(self, pictures: Sequence[Picture]) -> Iterator[Path]:
        """Their files."""
        return map(self.source, pictures)

    def place(self, picture: Picture) -> Place:
        """The same, as a place."""
        return Place(self.folder / picture.file_name)


@dataclass(frozen=True)
class Annotations:
    """What a split says, unchanged; the arrays run over its T objects in the order of the files."""

    file: Path                                  # that says it, or the folder of those that do
    names: tuple[str, ...]                      # of class 0..K-1, which is the order of the ids
    category_ids: tuple[int, ...]               # ascending, gaps allowed
    pictures: PictureList
    ids: Int64[np.ndarray, "T"]                 # or, where sources have no lines, numbers within the picture
    picture_index: Int64[np.ndarray, "T"]       # into `pictures`
    labels: Int64[np.ndarray, "T"]              # class indices 0..K-1
    boxes: Float[np.ndarray, "T 4"]             # float64: x, y, width, height in pixels
    areas: Float[np.ndarray, "T"]               # float64: of the object's mask, where the file gives it
    crowd: Bool[np.ndarray, "T"]                # True where the box holds a crowd
    store: PictureStore
    sources: tuple[Path, ...] = ()              # the label file of each picture, where each has its own
    lines: Int64[np.ndarray, "T"] | None = None     # of each object in those, if they have any

    def place_of_picture(self, index: int) -> Place:
        """Where the picture is listed, or the picture itself where nothing lists it."""
        picture = self.pictures[index]
        return self.store.place(picture) if self.sources else Place(self.file, entry=f"picture {picture.id}")

    def place_of_object(self, row: int) -> Place:
        """Where the object is written down."""
        if self.lines is not None:
            return Place(self.sources[self.picture_index[row]], int(self.lines[row]))
        if self.sources:
            picture = self.place_of_picture(int(self.picture_index[row]))
            return replace(picture, entry=f"{picture.entry}: object {self.ids[row]}")
        return Place(self.file, entry=f"annotation {self.ids[row]}")

    def read_picture(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The picture the way round that the annotations mean.

        Annotation tools differ in whether they obey EXIF, so the size they wrote down decides; where it
        tells nothing, upright. Raises DataError when the file is no picture, or of another size.
        """
        record, place = self.pictures[index], self.place_of_picture(index)
        try:
            source = self.store.source(record)
            picture = read_picture(source)
            if picture.shape[:2] != record.size:
                picture = read_picture(source, upright=False)
        except PictureError as error:
            named = str(error) if str(error).startswith(str(place)) else f"{place}: {error}"
            raise DataError(named) from error
        if picture.shape[:2] != record.size:
            raise DataError(f"{place}: expected {record.width} x {record.height} pixels, got "
                            f"{picture.shape[1]} x {picture.shape[0]} in {record.file_name}")
        return picture

    def subset(self, chosen: Sequence[int]) -> "Annotations":
        """The pictures of these indices, in this order, and their objects."""
        new_index = np.full(len(self.pictures), -1, np.int64)
        new_index[np.asarray(chosen, np.int64)] = np.arange(len(chosen))
        rows = new_index[self.picture_index] >= 0
        return replace(
            self.rows(rows), pictures=self.pictures.subset(chosen),
            picture_index=new_index[self.picture_index[rows]],
            sources=tuple(self.sources[index] for index in chosen) if self.sources else ())

    def rows(self, chosen: Bool[np.ndarray, "T"]) -> "Annotations":
        """The same pictures, with the objects for which `chosen` is True."""
        return replace(
            self, ids=self.ids[chosen], picture_index=self.picture_index[chosen], labels=self.labels[chosen],
            boxes=self.boxes[chosen], areas=self.areas[chosen], crowd=self.crowd[chosen],
            lines=None if self.lines is None else self.lines[chosen])
