"""A data set as a user provides it: a folder, in any format, with the splits train and val."""

import logging
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError, Findings, Place, stop
from deformable_detr.datasets.formats import find_source
from deformable_detr.datasets.formats.coco_folder import BESIDE
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import spelling
from deformable_detr.datasets.splits import SPLIT_NAMES, splits_in
from deformable_detr.progress import Progress, no_progress

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2
MAX_VALIDATION = 5000    # images
FILE_SUFFIXES = (".yaml", ".yml", ".data", ".json")


class DataFolder:
    """The splits of the data set in `folder`. Where there is no val, about a fifth of train is drawn for it.

    Faults are added to `findings`, by default logged; `progress` shows the reading. Raises DataError where there is no
    data set.
    """

    def __init__(self, folder: str | Path, findings: Findings | None = None,
                 progress: Progress = no_progress) -> None:
        reported = findings or Findings(strict=True)
        self.folder = _folder_of(Path(folder))
        self.source = replace(find_source(self.folder, reported), progress=progress)
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
        split = SPLIT_NAMES.get(split.lower(), split)
        if split not in self.splits:
            raise DataError(f"{self.folder}: no split {split!r}; the {self.source.format} data set there has "
                            f"{', '.join(self.splits)}")
        if not self.is_drawn or split == "test":
            return self.source.read(split, findings)
        if not self._parts:
            self._parts = self._drawn(self.source.read("train", findings))
        return self._parts[split]

    def _drawn(self, whole: Annotations) -> dict[str, Annotations]:
        """Train and val. Whether an image is drawn depends only on its name, so that further images move none."""
        count = len(whole.images)
        drawing = list(map(_draw, whole.images.file_names()))
        if len(set(drawing)) < 2:
            stop(Fault.NO_IMAGES, Place(self.folder), f"no split 'val', and train has too few images to draw one "
                 f"from: {count}")
        share = VALIDATION_SHARE
        while share * count > MAX_VALIDATION:   # halved: a limit that moved with each image would move others
            share /= 2
        limit = min(max(share, min(drawing)), max(set(drawing) - {max(drawing)}))    # neither split is empty
        parts = {"train": [index for index, number in enumerate(drawing) if number > limit],
                 "val": [index for index, number in enumerate(drawing) if number <= limit]}
        logger.info("%s: no split val: of %d images %d are drawn for it by their names, %d are left to train on",
                    self.folder, count, len(parts["val"]), len(parts["train"]))
        return {split: whole.subset(indices) for split, indices in parts.items()}


def _folder_of(path: Path) -> Path:
    """The folder of a data set; its settings or annotation file may be given instead."""
    if not path.is_file() or path.suffix.lower() not in FILE_SUFFIXES:
        return path
    is_inner = path.parent.name.lower() == "annotations" or (path.name == BESIDE and splits_in(path.parent.name))
    return path.parents[1] if is_inner else path.parent


def _draw(name: str) -> float:
    """A number from 0 to 1 that looks random and is the same for every spelling of a name."""
    text = spelling(PurePosixPath(name.replace("\\", "/")).as_posix())
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=6).digest()) / 2**48
