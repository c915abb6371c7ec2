"""A split of a COCO data set as samples to train on or to evaluate with."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from deformable_detr.data.annotations import Annotations, DataError, read_annotations
from deformable_detr.data.layout import find_split, picture_paths
from deformable_detr.data.transforms import PictureTransform
from deformable_detr.pictures import PictureError, read_picture
from deformable_detr.structures import ImageSize, Target

logger = logging.getLogger(__name__)

ROUNDING = 1.0    # pixels by which a box may leave its picture without a warning: tools round


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Which picture, and everything that chance decides about it: a worker process keeps no state."""

    index: int
    seed: int = 0
    canvas: ImageSize | None = None    # (height, width) to fit the picture into


class Sample(NamedTuple):
    """A picture ready for the model."""

    image: Float[Tensor, "3 H W"]      # normalised
    target: Target
    canvas: ImageSize | None


class CocoDataset(Dataset[Sample]):
    """One split of the data set in `folder`; index it by number or by SampleKey.

    Targets leave out crowds and boxes without area and clip the others to the picture; pictures
    without objects stay. `annotations` keeps the file's own words for evaluation.
    Raises DataError as soon as it is built, when the annotations are faulty or pictures are absent.
    """

    def __init__(self, folder: str | Path, split: str, transform: PictureTransform) -> None:
        annotation_file, picture_folder = find_split(Path(folder), split)
        self.annotations = read_annotations(annotation_file)
        self.paths = picture_paths(annotation_file, picture_folder, self.annotations.pictures)
        self.transform = transform
        self._boxes, self._labels, self._starts = _training_targets(self.annotations)

    @property
    def annotation_file(self) -> Path:
        return self.annotations.file

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every class."""
        return self.annotations.names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The file's own id of every class."""
        return self.annotations.category_ids

    def __len__(self) -> int:
        return len(self.paths)

    def truth(self, index: int) -> tuple[Float[Tensor, "T 4"], Int64[Tensor, "T"]]:
        """Boxes, xyxy in pixels of the picture, and class indices to train on."""
        rows = slice(self._starts[index], self._starts[index + 1])
        return torch.from_numpy(self._boxes[rows]), torch.from_numpy(self._labels[rows])

    def picture(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The picture the way round that the annotations mean.

        Annotation tools differ in whether they obey EXIF, so the size they wrote down decides; where it
        tells nothing, upright. Raises DataError when the file is no picture, or of another size.
        """
        record, path = self.annotations.pictures[index], self.paths[index]
        try:
            picture = read_picture(path)
            if picture.shape[:2] != record.size:
                picture = read_picture(path, upright=False)
        except PictureError as error:
            raise DataError(f"{self.annotation_file}: picture {record.id}: {error}") from error
        if picture.shape[:2] != record.size:
            raise DataError(f"{self.annotation_file}: picture {record.id}: expected {record.width} x "
                            f"{record.height} pixels, got {picture.shape[1]} x {picture.shape[0]} in {path}")
        return picture

    def __getitem__(self, key: int | SampleKey) -> Sample:
        key = key if isinstance(key, SampleKey) else SampleKey(key)
        boxes, labels = self.truth(key.index)
        picture, image_id = self.picture(key.index), self.annotations.pictures[key.index].id
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key.seed)    # torch.manual_seed would seed the GPUs too
            image, target = self.transform(picture, boxes, labels, image_id, key.canvas)
        return Sample(image, target, key.canvas)


def _training_targets(annotations: Annotations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (T, 4), float32 xyxy, and labels (T,); rows starts[i]:starts[i + 1] belong to picture i."""
    corner, size = annotations.boxes[:, :2], annotations.boxes[:, 2:]
    extents = np.array([(picture.width, picture.height) for picture in annotations.pictures], np.float64)
    limit = extents[annotations.picture_index]
    clipped = np.concatenate([np.clip(corner, 0, limit), np.clip(corner + size, 0, limit)], axis=1)
    boxes = clipped.astype(np.float32)
    thing = ~annotations.crowd
    empty = thing & (size <= 0).any(1)
    left = thing & ~empty & (boxes[:, 2:] <= boxes[:, :2]).any(1)
    over = thing & ~empty & ~left & ((corner < -ROUNDING) | (corner + size > limit + ROUNDING)).any(1)
    _warn(annotations, empty, "boxes have no area; they are left out of training")
    _warn(annotations, left, "boxes lie outside their picture; they are left out of training")
    _warn(annotations, over, "boxes reach outside their picture; they are clipped to it for training")
    rows = np.flatnonzero(thing & ~empty & ~left)
    rows = rows[np.argsort(annotations.picture_index[rows], kind="stable")]
    starts = np.searchsorted(annotations.picture_index[rows], np.arange(len(annotations.pictures) + 1))
    return boxes[rows], annotations.labels[rows], starts


def _warn(annotations: Annotations, found: np.ndarray, what: str) -> None:
    if found.any():
        logger.warning("%s: %d %s (first: annotation %d)", annotations.file, found.sum(), what,
                       annotations.ids[found.argmax()])
