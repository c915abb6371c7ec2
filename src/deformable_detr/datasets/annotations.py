"""The annotations of one split, in the form that every format is read into: names, images, arrays of objects."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from deformable_detr.datasets.findings import DataError, Place
from deformable_detr.datasets.image_list import ImageList, ImageRecord
from deformable_detr.images import ImageError, read_image


@runtime_checkable
class ImageStore(Protocol):
    """Where images are kept."""

    def source(self, image: ImageRecord) -> Path | bytes:
        """The image's file, or its bytes. Raises ImageError where they cannot be fetched."""
        ...

    def sources(self, images: Sequence[ImageRecord]) -> Iterator[Path | bytes]:
        """All of them, in this order; empty bytes for those that cannot be fetched."""
        ...

    def place(self, image: ImageRecord) -> Place:
        """Where a user finds the image."""
        ...


@dataclass(frozen=True)
class ImageFolder:
    """Images as files under a folder."""

    folder: Path

    def source(self, image: ImageRecord) -> Path:
        return self.folder / image.file_name

    def sources(self, images: Sequence[ImageRecord]) -> Iterator[Path]:
        return map(self.source, images)

    def place(self, image: ImageRecord) -> Place:
        return Place(self.folder / image.file_name)


@dataclass(frozen=True, kw_only=True)
class Objects:
    """T objects as columns, in the order of the files."""

    ids: Int64[np.ndarray, "T"]                     # COCO's; in formats without ids, numbers from 1 (shards: from 0)
    image_index: Int64[np.ndarray, "T"]             # index of the object's image in its split
    labels: Int64[np.ndarray, "T"]                  # class indices 0..K-1
    boxes: Float[np.ndarray, "T 4"]                 # float64: x, y, width, height in pixels
    areas: Float[np.ndarray, "T"]                   # float64: of the object's mask, where the file gives it
    crowd: Bool[np.ndarray, "T"]                    # True where the box holds a crowd
    lines: Int64[np.ndarray, "T"] | None = None     # of each object in its label file, where that has lines


@dataclass(frozen=True, kw_only=True)
class Annotations(Objects):
    """What the files of a split contain, unchanged: its objects, and what they refer to."""

    file: Path                                      # the annotation file, or the folder of the label files
    names: tuple[str, ...]                          # of classes 0..K-1, in the order of their ids
    category_ids: tuple[int, ...]                   # ascending, gaps allowed
    images: ImageList
    store: ImageStore
    sources: tuple[Path, ...] = ()                  # the label file of each image, where each has its own

    @property
    def is_centred(self) -> bool:
        """Whether the files give each box by its centre, as YOLO's label files do."""
        return bool(self.sources) and self.sources[0].suffix == ".txt"

    def place_of_image(self, index: int) -> Place:
        """Where the image is listed, or the image itself where nothing lists it."""
        image = self.images[index]
        return self.store.place(image) if self.sources else Place(self.file, entry=f"image {image.id}")

    def place_of_object(self, row: int) -> Place:
        """Where the object is written."""
        index = int(self.image_index[row])
        if self.lines is not None:
            return Place(self.sources[index], int(self.lines[row]))
        if self.sources:
            image = self.place_of_image(index)
            return replace(image, entry=f"{image.entry}: object {self.ids[row]}")
        return Place(self.file, entry=f"annotation {self.ids[row]}")

    def read_image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The image in the orientation that the annotations refer to.

        Annotation tools differ in whether they apply EXIF, so the annotated size decides; where both orientations
        have that size, upright. Raises DataError when the file is no image, or of another size.
        """
        record, place = self.images[index], self.place_of_image(index)
        try:
            source = self.store.source(record)
            image = read_image(source)
            if image.shape[:2] != record.size:
                image = read_image(source, upright=False)
        except ImageError as error:
            named = str(error) if str(error).startswith(str(place)) else f"{place}: {error}"
            raise DataError(named) from error
        if image.shape[:2] != record.size:
            raise DataError(f"{place}: expected {record.width} x {record.height} pixels, got "
                            f"{image.shape[1]} x {image.shape[0]} in {record.file_name}")
        return image

    def subset(self, chosen: Sequence[int]) -> "Annotations":
        """The images of these indices, in this order, and their objects."""
        new_index = np.full(len(self.images), -1, np.int64)
        new_index[np.asarray(chosen, np.int64)] = np.arange(len(chosen))
        rows = new_index[self.image_index] >= 0
        return replace(
            self.rows(rows), images=self.images.subset(chosen), image_index=new_index[self.image_index[rows]],
            sources=tuple(self.sources[index] for index in chosen) if self.sources else ())

    def rows(self, chosen: Bool[np.ndarray, "T"]) -> "Annotations":
        """The objects for which `chosen` is True."""
        return replace(
            self, ids=self.ids[chosen], image_index=self.image_index[chosen], labels=self.labels[chosen],
            boxes=self.boxes[chosen], areas=self.areas[chosen], crowd=self.crowd[chosen],
            lines=None if self.lines is None else self.lines[chosen])

    def without_objects(self) -> "Annotations":
        """The same images."""
        return self.rows(np.zeros(len(self.ids), bool))
