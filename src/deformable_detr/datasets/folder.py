"""A data set as a user hands it over: a folder, whatever the format, with the splits train and val."""

import logging
from pathlib import Path

import numpy as np

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError, Findings, Place, stop
from deformable_detr.datasets.formats import find_source
from deformable_detr.datasets.kinds import Kind

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2
MAX_VALIDATION = 5000    # images
SPLIT_SEED = 0           # not the training's: evaluation must find the same images


class DataFolder:
    """The splits of the data set in `folder`. Where there is no val, a share of train is drawn for it.

    What is odd about it goes to `findings`, by default to the log. Raises DataError where there is no data set.
    """

    def __init__(self, folder: str | Path, findings: Findings | None = None) -> None:
        reported = findings or Findings(strict=True)
        self.folder = Path(folder)
        self.source = find_source(self.folder, reported)
        self._parts: dict[str, Annotations] = {}    # of a train that is split here
        if findings is None:
            reported.log()

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of train, val and test there are."""
        there = {*self.source.splits, *(["val"] if self.is_drawn else [])}
        return tuple(split for split in ("train", "val", "test") if split in there)

    @property
    def is_drawn(self) -> bool:
        """Whether val is drawn from train."""
        return "train" in self.source.splits and "val" not in self.source.splits

    def read(self, split: str, findings: Findings) -> Annotations:
        """A split without what is at fault, which is reported. Raises DataError."""
        if split not in self.splits:
            raise DataError(f"{self.folder}: no split {split!r}; the {self.source.format} data set there has "
                            f"{', '.join(self.splits)}")
        if not self.is_drawn or split == "test":
            return self.source.read(split, findings)
        if not self._parts:
            self._parts = self._drawn(self.source.read("train", findings))
        return self._parts[split]

    def _drawn(self, whole: Annotations) -> dict[str, Annotations]:
        """Train and val. Which images are drawn depends on nothing but the images' names."""
        count = len(whole.images)
        if count < 2:
            stop(Kind.NO_IMAGES, Place(self.folder), f"no split 'val', and train has too few images to draw one "
                 f"from: {count}")
        by_name = sorted(range(count), key=list(whole.images.file_names()).__getitem__)
        num_drawn = min(max(1, round(VALIDATION_SHARE * count)), MAX_VALIDATION)
        order = np.random.default_rng(SPLIT_SEED).permutation(count)
        drawn = {by_name[position] for position in order[:num_drawn]}
        logger.info("%s: no split val: of %d images %d are drawn for it (seed %d), %d are left to train on",
                    self.folder, count, num_drawn, SPLIT_SEED, count - num_drawn)
        return {"train": whole.subset([index for index in range(count) if index not in drawn]),
                "val": whole.subset(sorted(drawn))}
