"""The files of a data set on disk: no name leads out of its folder, no link but to a folder of images or labels."""

import os
import re
import stat
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path, PurePath

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.documents import DocumentError, read_lines
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.kinds import Kind
from deformable_detr.text import CONTROL_CHARACTER, is_unicode, quoted

# What tools and services call the splits.
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
               "test": "test", "testing": "test"}
PERHAPS_OUTSIDE = re.compile(r"\.\.|^[/\\]|:")    # a name without any of these is inside


class Fence:
    """Tells what lies inside a data set: in its folder, or in a folder of images or labels which it links to."""

    def __init__(self, data: Path, *folders: Path) -> None:
        self._roots = [folder.resolve() for folder in (data, *folders)]
        self._folder_inside = cache(self._lies_inside)  # folders are few, and each costs several system calls

    def holds(self, path: str | Path) -> bool:
        """Whether there is such a file. Raises EntryError for one that lies outside."""
        try:
            if self._holds_plainly(str(path)):
                return True
            real = Path(path).resolve()
            there = real.is_file()
        except (OSError, RuntimeError, ValueError):     # a name too long, links that lead in a circle
            return False
        if there and not self._lies_inside(real):
            raise EntryError(Kind.NAME_REFUSED,
                             f"expected a file inside {self._roots[0]}, got a link to {quoted(str(real))}")
        return there

    def _holds_plainly(self, path: str) -> bool:
        """Whether it is a file, no link, in a folder inside: a quick look, as there may be half a million."""
        try:
            is_file = stat.S_ISREG(os.lstat(path).st_mode)
        except OSError:
            return False
        return is_file and self._folder_inside(os.path.dirname(path))   # noqa: PTH120  (ten times as fast as a Path)

    def _lies_inside(self, path: str | Path) -> bool:
        real = Path(path).resolve()
        return any(real.is_relative_to(root) for root in self._roots)


def check_name(name: str) -> None:
    """Raise EntryError for a file name that leads out of its folder, or that no terminal or list can hold."""
    path = PurePath(name) if PERHAPS_OUTSIDE.search(name) else None
    if path and (path.is_absolute() or ".." in path.parts):
        raise EntryError(Kind.NAME_REFUSED, f"file_name: expected a file inside the data set, got {quoted(name)}")
    if CONTROL_CHARACTER.search(name):
        raise EntryError(Kind.NAME_REFUSED, f"file_name: expected no control characters, got {quoted(name)}")
    if not is_unicode(name):
        raise EntryError(Kind.NAME_REFUSED, f"file_name: expected Unicode, got {quoted(name)}")


def present(annotations: Annotations, folder: Path, data: Path, findings: Findings) -> Annotations:
    """The annotations without those images of `folder` that are not there or lie outside, which are reported."""
    fence, kept = Fence(data, folder), []
    faults: dict[Kind, list[tuple[int, str]]] = {Kind.NAME_REFUSED: [], Kind.PICTURE_MISSING: []}
    for index, name in enumerate(annotations.images.file_names()):
        try:
            check_name(name)
            if not fence.holds(f"{folder}{os.sep}{name}"):
                raise EntryError(Kind.PICTURE_MISSING, f"{quoted(name)} is not in {folder}")
            kept.append(index)
        except EntryError as fault:
            faults[fault.kind].append((index, fault.message))
    for kind, found in faults.items():
        findings.add_all(kind, len(found), ((annotations.place_of_image(index), message)
                                            for index, message in found))
    return annotations if len(kept) == len(annotations.images) else annotations.subset(kept)


def list_files(folder: Path, suffixes: Collection[str], data: Path, findings: Findings) -> list[str]:
    """The files under a folder with one of these endings, in order, by their names from there.

    Hidden ones do not count; those that lead out or whose names cannot be are reported.
    """
    fence, names = Fence(data, folder), []
    for name, is_linked_folder in _walk(folder, suffixes):
        try:
            check_name(name)
            if is_linked_folder:
                raise EntryError(Kind.NAME_REFUSED, "expected a folder, got a link to one")
            if fence.holds(folder / name):
                names.append(name)
            else:
                findings.add(Kind.PICTURE_MISSING, Place(folder / name), "a link to nothing")
        except EntryError as fault:
            findings.add(fault.kind, Place(folder / name), fault.message)
    return sorted(names)


def read_list(file: Path, data: Path) -> list[tuple[int, str]]:
    """The lines of a text file which are not empty, with their numbers. Raises DataError."""
    try:
        if not Fence(data).holds(file):
            raise EntryError(Kind.ANNOTATION_FILE, "no such file")
        return [(number, line.strip()) for number, line in enumerate(read_lines(file), start=1) if line.strip()]
    except EntryError as fault:
        stop(fault.kind, Place(file), fault.message)
    except DocumentError as error:
        stop(Kind.ANNOTATION_FILE, Place(file), str(error))


def _walk(folder: Path, suffixes: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Such files, and with True the links to folders, which are not followed."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(folder)
        for name in folders:
            if Path(parent, name).is_symlink():
                yield (inside / name).as_posix(), True
        for name in files:
            if PurePath(name).suffix.lower() in suffixes and not name.startswith("."):
                yield (inside / name).as_posix(), False
