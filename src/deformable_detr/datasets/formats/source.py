"""What every format offers: the splits of a folder, and the reading of one."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings, Place, stop
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.layout import SPLIT_NAMES
from deformable_detr.text import CONTROL_CHARACTER, quoted

UNNAMED_SPLIT = "train"     # what images that no split claims belong to
CLASSES = "classes.txt"     # the names of the classes, one a line, as Label Studio and labelImg write them
LARGEST = 2**63 - 1         # of a number in a file: ids are kept in int64 arrays


@runtime_checkable
class DataSource(Protocol):
    """The annotations of a folder, in one format."""

    @property
    def format(self) -> str:
        """The format's name."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of train, val and test there are."""
        ...

    def read(self, split: str, findings: Findings) -> Annotations:
        """A split without what is at fault, which is reported. Raises DataError where nothing is left to read."""
        ...


def split_of(name: PurePath) -> str:
    """The split of a file that is one of many: train-00000-of-00001.parquet, val.tar, train/0000.parquet"""
    words = (*re.split("[-_.]", name.stem), *reversed(name.parts[:-1]))
    return next((SPLIT_NAMES[word.lower()] for word in words if word.lower() in SPLIT_NAMES), UNNAMED_SPLIT)


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return type(value) in (int, float) and abs(value) <= LARGEST    # which NaN is not


def checked_names(file: Path, names: Mapping[int, Any]) -> dict[int, str]:
    """The names of classes by their numbers, which must be texts that differ. Raises DataError."""
    for number, name in names.items():
        place = Place(file, entry=f"class {number}")
        if not isinstance(name, str) or not name.strip():
            stop(Kind.ANNOTATION_FILE, place, f"expected a name, got {quoted(name)}")
        if CONTROL_CHARACTER.search(name):
            stop(Kind.NAME_REFUSED, place, f"expected a name without control characters, got {quoted(name)}")
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        stop(Kind.ID_TWICE, Place(file, entry="names"), f"expected each once, got {quoted(twice[0])} again")
    return dict(names)
