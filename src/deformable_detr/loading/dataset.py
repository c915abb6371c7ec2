"""A split of a data set as samples to train on or to evaluate with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.targets import training_targets
from deformable_detr.loading.mosaic import Annotated, mosaic
from deformable_detr.loading.transforms import ImageTransform, eval_transform
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import ImageSize, Target


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Which image, and everything that chance decides about it: a worker process keeps no state."""

    index: int
    seed: int = 0
    canvas: ImageSize | None = None    # (height, width) to fit the image into
    plain: bool = False                # as in the last epochs


class Sample(NamedTuple):
    """An image ready for the model."""

    image: Float[Tensor, "3 H W"]      # normalised
    target: Target
    canvas: ImageSize | None


class DetectionDataset(Dataset[Sample]):
    """One split of the data set in `data`, a folder; index it by number or by SampleKey.

    Targets leave out crowds and boxes without area and clip the others to the image; images
    without objects stay. `transform` is by default that of the published evaluation;
    it may be set later. `annotations` keeps the file's own words for evaluation. What is left out or clipped goes
    to `findings`, by default to the log.
    Raises DataError as soon as it is built, when the annotations are faulty or images are absent.
    """

    def __init__(self, data: DataFolder | str | Path, split: str,
                 transform: ImageTransform | None = None, findings: Findings | None = None) -> None:
        reported = findings or Findings(strict=True)
        folder = data if isinstance(data, DataFolder) else DataFolder(data, reported)
        self.annotations = folder.read(split, reported)
        self.targets = training_targets(self.annotations, reported)
        self.transform = transform or eval_transform(Preprocessing())
        if findings is None:
            reported.log()

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every class."""
        return self.annotations.names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The file's own id of every class."""
        return self.annotations.category_ids

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to a worker process that is not forked: of the objects, those to train on alone."""
        none = np.zeros(len(self.annotations.boxes), bool)
        return {**self.__dict__, "annotations": self.annotations.rows(none)}

    def truth(self, index: int) -> tuple[Float[Tensor, "T 4"], Int64[Tensor, "T"]]:
        """Boxes, xyxy in pixels of the image, and class indices to train on."""
        rows = slice(self.targets.starts[index], self.targets.starts[index + 1])
        return torch.from_numpy(self.targets.boxes[rows]), torch.from_numpy(self.targets.labels[rows])

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The image the way round that the annotations mean. Raises DataError when it cannot be read."""
        return self.annotations.read_image(index)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        key = key if isinstance(key, SampleKey) else SampleKey(key)
        transform = self.transform.plain if key.plain else self.transform
        annotated, image_id = self.annotated(key.index), self.annotations.images[key.index].id
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key.seed)    # torch.manual_seed would seed the GPUs too
            if transform.mosaic and torch.rand(()) < transform.mosaic.chance:
                others = torch.randint(len(self), (3,)).tolist()
                annotated = mosaic([annotated, *map(self.annotated, others)],
                                   key.canvas or annotated.image.shape[:2])
                transform = transform.mosaic.transform
            image, target = transform(*annotated, image_id, key.canvas)
        return Sample(image, target, key.canvas)

    def annotated(self, index: int) -> Annotated:
        """The image and what there is to find in it."""
        return Annotated(self.image(index), *self.truth(index))
