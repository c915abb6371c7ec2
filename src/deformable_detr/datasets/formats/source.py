"""What every format offers: recognising its data sets, their splits, and the reading of one; and checks they share."""

import os
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeGuard, TypeVar

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.splits import UNNAMED_SPLIT, split_folders
from deformable_detr.progress import Progress, no_progress
from deformable_detr.text import CONTROL_CHARACTER, is_unicode, quoted

CLASSES_FILE = "classes.txt"    # the names of the classes, one a line, as Label Studio and labelImg write them
HEAD = 2**16        # characters of a file that show what it is
ONLY_FOLDERS = "the folders of the splits are read"
LARGEST_NUMBER = 2**63 - 1      # in a file: ids are kept in int64 arrays

Files = TypeVar("Files")


@dataclass(frozen=True)
class DataSource(ABC, Generic[Files]):
    """A data set in one format: its folder, and of each split (train, val, test) where its files are."""

    folder: Path
    places: dict[str, Files]
    progress: Progress = field(default=no_progress, kw_only=True)

    format: ClassVar[str]
    layout: ClassVar[str]                       # the expected files, as an error message names them
    reports_unlisted: ClassVar[bool] = True     # whether reading reports the images that nothing lists

    @classmethod
    @abstractmethod
    def find(cls, folder: Path, findings: Findings) -> "DataSource[Files] | None":
        """The data set of this format in a folder, if there is one. Raises DataError where it cannot be used."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Which splits there are."""
        return tuple(self.places)

    @abstractmethod
    def read(self, split: str, findings: Findings) -> Annotations:
        """A split without what is at fault, which is reported. Raises DataError where nothing can be read."""


def begins_with(file: Path, marks: tuple[str, ...]) -> bool:
    """Whether the file, which no link leads to, begins with something that holds all marks."""
    if file.is_symlink() or not file.is_file():
        return False
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            head = opened.read(HEAD)
    except OSError:
        return False
    return all(mark in head for mark in marks)


def file_of_each_split(folder: Path, name: str, marks: tuple[str, ...], findings: Findings) -> dict[str, Path]:
    """The files of this name, which begin with all marks, in the folders of splits; else the folder's own."""
    children = {child.name: child for child in folders_in(folder) if begins_with(child / name, marks)}
    found = {split: children[child] / name for split, child in split_folders(children, findings).items()}
    if not begins_with(folder / name, marks):
        return found
    if found:
        findings.add(Fault.OTHER_ANNOTATIONS, Place(folder / name), ONLY_FOLDERS)
    return found or {UNNAMED_SPLIT: folder / name}


def folders_in(folder: Path) -> list[Path]:
    """The folders directly inside, hidden ones left out."""
    with os.scandir(folder) as entries:     # which knows what each is: there may be half a million files
        return [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return type(value) in (int, float) and abs(value) <= LARGEST_NUMBER    # which NaN is not


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Whether it is a list of four finite numbers."""
    return type(value) is list and len(value) == 4 and all(map(is_number, value))


def check_class_name(name: Any) -> str:
    """The name of a class, its letters composed (NFC). Raises EntryError for what cannot be one."""
    if not isinstance(name, str) or not name.strip() or not is_unicode(name):
        raise EntryError(Fault.ENTRY, f"name: expected a text, got {'nothing' if name is None else quoted(name)}")
    if CONTROL_CHARACTER.search(name):
        raise EntryError(Fault.NAME_REFUSED, f"name: expected no control characters, got {quoted(name)}")
    return unicodedata.normalize("NFC", name)


def check_class_names(file: Path, names: Mapping[int, Any]) -> dict[int, str]:
    """The names of a data set's classes, which must differ, by their ids. Raises DataError."""
    checked: dict[int, str] = {}
    for number, name in names.items():
        try:
            checked[number] = check_class_name(name)
        except EntryError as fault:
            stop(fault.kind, Place(file, entry=f"class {number}"), fault.message)
    twice = [name for name, count in Counter(checked.values()).items() if count > 1]
    if twice:
        stop(Fault.ID_TWICE, Place(file, entry="names"), f"expected each once, got {quoted(twice[0])} again")
    return checked
