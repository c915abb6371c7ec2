"""The files of a data set on disk. No name leads outside its folder, nor does a link, but to a folder of images."""

import os
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePath

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.image_list import ImageList
from deformable_detr.datasets.kinds import Fault
from deformable_detr.documents import DocumentError, read_lines
from deformable_detr.images import SUFFIXES
from deformable_detr.images.finding import UNREAD_FORMAT, UNREAD_SUFFIXES
from deformable_detr.text import CONTROL_CHARACTER, is_unicode, quoted

PERHAPS_OUTSIDE = re.compile(r"\.\.|^[/\\]|:")    # a name without any of these stays inside


class Fence:
    """Knows which files are inside a data set: in its folder, or in a folder of images or labels that it links to."""

    def __init__(self, data: Path, *folders: Path) -> None:
        self._roots = [folder.resolve() for folder in (data, *folders)]
        self._folder_inside = cache(self._is_inside)  # folders are few, and each costs several system calls

    def holds(self, path: str | Path) -> bool:
        """Whether there is such a file inside."""
        if self._holds_plainly(str(path)):
            return True
        real = _real_file(path)
        return real is not None and self._is_inside(real)

    def check(self, path: str | Path) -> None:
        """Raise EntryError for a file that is outside, where a link leads to it."""
        real = _real_file(path)
        if real is not None and not self._is_inside(real):
            raise EntryError(Fault.NAME_REFUSED,
                             f"expected a file inside {self._roots[0]}, got a link to {quoted(str(real))}")

    def _holds_plainly(self, path: str) -> bool:
        """Whether it is a file, not a link, in a folder inside: the quick way, as there may be half a million."""
        try:
            is_file = stat.S_ISREG(os.lstat(path).st_mode)
        except (OSError, ValueError):   # a name too long, a null byte
            return False
        return is_file and self._folder_inside(os.path.dirname(path))   # noqa: PTH120  (ten times as fast as a Path)

    def _is_inside(self, path: str | Path) -> bool:
        real = Path(path).resolve()
        return any(real.is_relative_to(root) for root in self._roots)


class FileNames:
    """Finds the files under `folder` by names from other systems, which may spell them differently."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries = cache(self._read_entries)

    def find(self, written: str) -> str | None:
        """The name of the file or folder that is meant; None where there is none, or where it could be several."""
        found = ""
        for part in written.replace("\\", "/").removeprefix("./").split("/"):
            entries = self._entries(found).get(spelling(part), [])
            if part not in entries and len(entries) != 1:
                return None
            found = f"{found}{'/' if found else ''}{part if part in entries else entries[0]}"
        return found

    def _read_entries(self, inside: str) -> dict[str, list[str]]:
        entries: dict[str, list[str]] = defaultdict(list)
        try:
            for name in os.listdir(self.folder / inside):   # noqa: PTH208  (names only)
                entries[spelling(name)].append(name)
        except (OSError, ValueError):   # no folder, a null byte
            pass
        return entries


def spelling(name: str) -> str:
    """What all spellings of a file's name have in common: letters are composed (NFC), the suffix is in lower case."""
    stem, dot, suffix = unicodedata.normalize("NFC", name).rpartition(".")
    return f"{stem}{dot}{suffix.lower()}" if dot else suffix


def _real_file(path: str | Path) -> Path | None:
    """The file that a path leads to, if it leads to one."""
    try:
        real = Path(path).resolve()
        return real if real.is_file() else None
    except (OSError, RuntimeError, ValueError):     # a name too long, links in a circle, a null byte
        return None


def check_name(name: str) -> None:
    """Raise EntryError for a file name that leads outside its folder, or that cannot be printed or written."""
    path = PurePath(name) if PERHAPS_OUTSIDE.search(name) else None
    if path and (path.is_absolute() or ".." in path.parts):
        raise EntryError(Fault.NAME_REFUSED, f"file_name: expected a file inside the data set, got {quoted(name)}")
    if CONTROL_CHARACTER.search(name):
        raise EntryError(Fault.NAME_REFUSED, f"file_name: expected no control characters, got {quoted(name)}")
    if not is_unicode(name):
        raise EntryError(Fault.NAME_REFUSED, f"file_name: expected Unicode, got {quoted(name)}")


def present(annotations: Annotations, folder: Path, data: Path, findings: Findings) -> Annotations:
    """The annotations without the images that are not in `folder`, or outside `data`; these are reported.

    Names get the spelling that their files have.
    """
    report_linked(data, [folder], findings)
    fence, names, kept, respelt = Fence(data, folder), FileNames(folder), [], {}
    faults: dict[Fault, list[tuple[int, str]]] = {Fault.NAME_REFUSED: [], Fault.PICTURE_MISSING: []}
    for index, name in enumerate(annotations.images.file_names()):
        try:
            check_name(name)
            if not fence.holds(f"{folder}{os.sep}{name}"):
                fence.check(f"{folder}{os.sep}{name}")
                found = names.find(name)
                if found is None or not fence.holds(folder / found):
                    raise EntryError(Fault.PICTURE_MISSING, f"{quoted(name)} is not in {folder}")
                respelt[index] = found
            kept.append(index)
        except EntryError as fault:
            faults[fault.kind].append((index, fault.message))
    for kind, entries in faults.items():
        findings.add_all(kind, len(entries), ((annotations.place_of_image(index), message)
                                              for index, message in entries))
    if respelt:
        annotations = replace(annotations, images=ImageList.of([
            replace(image, file_name=respelt.get(index, image.file_name))
            for index, image in enumerate(annotations.images)]))
    return annotations if len(kept) == len(annotations.images) else annotations.subset(kept)


def report_linked(data: Path, folders: Iterable[Path], findings: Findings) -> None:
    """Report, once, the folders of images or labels that a link leads out of the data set."""
    for folder in folders:
        if not folder.resolve().is_relative_to(data.resolve()) and not findings.has(Fault.FOLDER_LINKED, Place(folder)):
            findings.add(Fault.FOLDER_LINKED, Place(folder), f"it leads to {quoted(str(folder.resolve()))}")


def list_files(folder: Path, suffixes: Collection[str], data: Path, findings: Findings) -> list[str]:
    """The files under a folder with one of these suffixes, by their names from there, sorted.

    Hidden ones do not count; links that lead outside `data`, refused names, and images in a format that is not read
    are reported.
    """
    fence, names = Fence(data, folder), []
    unread = UNREAD_SUFFIXES if suffixes is SUFFIXES else frozenset()
    for name, is_linked_folder in _walk(folder, unread.union(suffixes)):
        try:
            if PurePath(name).suffix.lower() in unread and not is_linked_folder:
                findings.add(Fault.PICTURE_UNREAD, Place(folder / name), UNREAD_FORMAT)
                continue
            check_name(name)
            if is_linked_folder:
                raise EntryError(Fault.NAME_REFUSED, "expected a folder, got a link to one")
            if not fence.holds(folder / name):
                fence.check(folder / name)
                raise EntryError(Fault.PICTURE_MISSING, "a link to nothing")
            names.append(name)
        except EntryError as fault:
            findings.add(fault.kind, Place(folder / name), fault.message)
    return sorted(names)


def read_list(file: Path, data: Path) -> list[tuple[int, str]]:
    """The numbers of the lines of a text file that are not empty, and the lines. Raises DataError."""
    fence = Fence(data)
    try:
        if not fence.holds(file):
            fence.check(file)
            raise EntryError(Fault.ANNOTATION_FILE, "no such file")
        return [(number, line.strip()) for number, line in enumerate(read_lines(file), start=1) if line.strip()]
    except EntryError as fault:
        stop(fault.kind, Place(file), fault.message)
    except DocumentError as error:
        stop(Fault.ANNOTATION_FILE, Place(file), str(error))


def _walk(folder: Path, suffixes: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The files, and with True the links to folders, which are not followed."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(folder)
        for name in folders:
            if Path(parent, name).is_symlink():
                yield (inside / name).as_posix(), True
        for name in files:
            if PurePath(name).suffix.lower() in suffixes and not name.startswith("."):
                yield (inside / name).as_posix(), False
