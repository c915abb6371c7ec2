"""A split of a data set as samples to train on or to evaluate with."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.loading.mosaic import Annotated, mosaic
from deformable_detr.loading.targets import TrainingObjects, training_objects
from deformable_detr.loading.transforms import ImageTransform, eval_transform
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.progress import Progress, no_progress
from deformable_detr.structures import ImageSize, Target


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Which image, and everything random about it: a worker process keeps no state."""

    index: int
    seed: int = 0
    canvas: ImageSize | None = None    # (height, width) to fit the image into
    plain: bool = False                # as in the last epochs


class Sample(NamedTuple):
    """An image ready for the model."""

    image: Float[Tensor, "3 H W"]      # normalised
    target: Target
    canvas: ImageSize | None


class Samples(Dataset[Sample]):
    """The samples of a split, by number or by SampleKey; all that a worker process needs.

    Of the objects it holds only those to train on: every worker that is not forked gets a copy.
    """

    def __init__(self, images: Annotations, targets: TrainingObjects, transform: ImageTransform) -> None:
        self._images = images.without_objects()
        self.targets, self.transform = targets, transform

    def __len__(self) -> int:
        return len(self._images.images)

    def truth(self, index: int) -> tuple[Float[Tensor, "T 4"], Int64[Tensor, "T"]]:
        """Boxes, xyxy in pixels of the image, and class indices to train on."""
        rows = slice(self.targets.starts[index], self.targets.starts[index + 1])
        return torch.from_numpy(self.targets.boxes[rows]), torch.from_numpy(self.targets.labels[rows])

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The image in the orientation that the annotations refer to. Raises DataError when it cannot be read."""
        return self._images.read_image(index)

    def annotated(self, index: int) -> Annotated:
        """The image and its objects to train on."""
        return Annotated(self.image(index), *self.truth(index))

    def __getitem__(self, key: int | SampleKey) -> Sample:
        key = key if isinstance(key, SampleKey) else SampleKey(key)
        transform = self.transform.plain if key.plain else self.transform
        annotated, image_id = self.annotated(key.index), self._images.images[key.index].id
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key.seed)    # torch.manual_seed would seed the GPUs too
            if transform.mosaic and torch.rand(()) < transform.mosaic.chance:
                others = torch.randint(len(self), (3,)).tolist()
                annotated = mosaic([annotated, *map(self.annotated, others)],
                                   key.canvas or annotated.image.shape[:2])
                transform = transform.mosaic.transform
            image, target = transform(*annotated, image_id, key.canvas)
        return Sample(image, target, key.canvas)

    def __getitems__(self, keys: Sequence[int | SampleKey]) -> list[Sample] | DataError:
        """The samples of a batch, which PyTorch's loader asks for; an error is returned, for `BatchLoader` to raise.

        From a worker process PyTorch would pass on an error's traceback as one text, in place of its message.
        """
        try:
            return [self[key] for key in keys]
        except DataError as error:
            return error


class DetectionDataset(Samples):
    """One split of the data set in `data`, a folder; index it by number or by SampleKey.

    Targets leave out crowds and boxes without area, and clip the others to the image; images without objects stay.
    `annotations` keeps all of the file's objects for evaluation. `transform` is by default that of the published
    evaluation. Faults, and what is left out or clipped, are added to `findings`, by default logged; `progress` shows
    the reading. Raises DataError when the annotations are faulty or images are absent.
    """

    def __init__(self, data: DataFolder | str | Path, split: str, transform: ImageTransform | None = None,
                 findings: Findings | None = None, progress: Progress = no_progress) -> None:
        reported = findings or Findings(strict=True)
        folder = data if isinstance(data, DataFolder) else DataFolder(data, reported, progress)
        self.annotations = folder.read(split, reported)
        super().__init__(self.annotations, training_objects(self.annotations, reported),
                         transform or eval_transform(Preprocessing()))
        if findings is None:
            reported.log()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes 0..K-1."""
        return self.annotations.names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The files' own ids of the classes 0..K-1."""
        return self.annotations.category_ids

    def samples(self) -> Samples:
        """What to send to worker processes."""
        return Samples(self._images, self.targets, self.transform)

    def with_transform(self, transform: ImageTransform) -> "DetectionDataset":
        """The same split, transformed otherwise."""
        changed = copy(self)
        changed.transform = transform
        return changed
