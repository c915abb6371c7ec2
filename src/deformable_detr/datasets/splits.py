"""Which split a file or folder belongs to, by its name; the words and delimiters are those of the Hugging Face Hub."""

import re
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from deformable_detr.datasets.findings import Findings, Place, stop
from deformable_detr.datasets.kinds import Fault
from deformable_detr.text import quoted

# What tools and services call the splits; of two names of a split the first counts.
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
               "test": "test", "testing": "test", "eval": "test", "evaluation": "test"}
UNNAMED_SPLIT = "train"     # of a data set whose files name no split
NO_SPLIT = "its name is not that of a split"
DELIMITERS = re.compile(r"[\W\d_]+")


def splits_in(name: str) -> set[str]:
    """The splits whose words a name contains: val0000, coco-val2017-0, "test 0", validation[0]."""
    return {SPLIT_NAMES[word] for word in DELIMITERS.split(name.lower()) if word in SPLIT_NAMES}


def named_splits(names: Mapping[str, Path], findings: Findings) -> dict[str, str]:
    """Which of the names stands for each split; others that a split's word is in are reported, each at its path."""
    order = list(SPLIT_NAMES)
    found: dict[str, str] = {}
    # An exact name comes before one that only contains it.
    for name in sorted(names, key=lambda name: (order.index(name.lower()) if name.lower() in order else len(order),
                                                name)):
        splits = splits_in(name)
        split = splits.pop() if len(splits) == 1 else None
        if split and found.setdefault(split, name) == name:
            continue
        if split or splits:
            findings.add(Fault.OTHER_ANNOTATIONS, Place(names[name]),
                         f"for {split} {found[split]} is read" if split else f"it names {' and '.join(sorted(splits))}")
    return found


def split_folders(folders: Mapping[str, Path], findings: Findings) -> dict[str, str]:
    """Which folder of a data set, by its name, stands for each split; where one does, all others are reported."""
    found = named_splits(folders, findings)
    for name in sorted(folders):
        if found and not splits_in(name):
            findings.add(Fault.OTHER_ANNOTATIONS, Place(folders[name]), NO_SPLIT)
    return found


def files_by_split(folder: Path, names: Iterable[str]) -> dict[str, tuple[Path, ...]]:
    """Files of a folder, sorted into splits. Raises DataError where a name does not tell its split."""
    paths = list(map(PurePath, names))
    in_every_name = set.intersection(*(splits_in(path.stem) for path in paths)) if paths else set()
    found: dict[Any, list[PurePath]] = {}
    for path in paths:
        splits = splits_in(path.stem)
        if len(splits) > 1:     # crash-test-train-0 beside crash-test-val-0
            splits = splits - in_every_name or splits
        else:
            for parent in path.parents:
                splits = splits or splits_in(parent.name)
        found.setdefault(tuple(sorted(splits)), []).append(path)
    unnamed = found.pop((), [])
    if not found and len({tuple(DELIMITERS.split(path.parent.as_posix())) for path in unnamed}) <= 1:
        found, unnamed = {(UNNAMED_SPLIT,): unnamed} if unnamed else {}, []
    unclear = [path.as_posix() for splits, of_splits in found.items() if len(splits) > 1 for path in of_splits]
    unclear += [path.as_posix() for path in unnamed]
    if unclear:
        stop(Fault.SPLIT_UNKNOWN, Place(folder / unclear[0]), "expected one of the words train, val and test in the "
             f"name of the file or its folder, got {quoted([path.as_posix() for path in paths])}")
    for (split,), of_split in found.items():
        if len({_above(split, path) for path in of_split}) > 1:
            stop(Fault.SPLIT_UNKNOWN, Place(folder / of_split[0]), f"expected one data set, got {split} in several "
                 f"folders: {quoted([path.as_posix() for path in of_split])}")
    return {split: tuple(folder / path for path in of_split) for (split,), of_split in found.items()}


def _above(split: str, path: PurePath) -> tuple[str, ...]:
    """The folders before the first name that says the split, without digits: of full/train/0.tar it is full."""
    above = takewhile(lambda name: split not in splits_in(name), path.parent.parts)
    return tuple(DELIMITERS.sub(" ", name).strip() for name in above)
