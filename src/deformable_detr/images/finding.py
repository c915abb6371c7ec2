"""The image files in a folder or matched by a glob, and what was left out."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from deformable_detr.images.errors import ImageError, name_of
from deformable_detr.images.opening import SUFFIXES

# Images that are not read: formats of phones, raw files of cameras, and files of drawing programs.
UNREAD_SUFFIXES = frozenset({
    ".heic", ".heif", ".hif", ".jxl", ".jxr", ".psd", ".svg", ".eps", ".tga", ".exr", ".hdr", ".dds", ".dcm", ".fits",
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef", ".nrw", ".orf",
    ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".x3f"})

UNREAD_FORMAT = "format not supported"
BROKEN_LINK = "link to nowhere"
NO_FILE = "not a file"
CLOSED_FOLDER = "folder that cannot be opened"


@dataclass(frozen=True)
class LeftOut:
    """A file that looks like an image, or a folder that may hold some, and why it is not among those found."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FoundImages:
    """Image files, as an iterable of `paths`."""

    paths: tuple[Path, ...]          # in order of their names, each real file once
    left_out: tuple[LeftOut, ...]

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def left_out_summary(self) -> str:
        """How many were left out and why, for one line: "3 x .heic (format not supported)"; empty for none."""
        return _summary(self.left_out)


def find_images(source: str | os.PathLike[str], suffixes: frozenset[str] = SUFFIXES) -> FoundImages:
    """The images of a folder or a glob; a single file is returned whatever its suffix.

    In a folder these are the files directly in it that have one of the suffixes and are not hidden. `**` in a glob
    matches any number of folders, and visits each real folder once, however many links lead to it. A file reached by
    several paths is returned once, by its own path rather than a link; to compare the results of two calls, use
    `os.path.realpath`. Raises ImageError if there is no such file, no image in the folder or no match for the glob.
    """
    pattern = os.fspath(source)
    left_out: list[LeftOut] = []
    if os.path.isdir(pattern):  # noqa: PTH112 - unlike Path's, never raises
        candidates = _entries(Path(pattern), left_out)
    elif os.path.exists(pattern):  # noqa: PTH110
        return FoundImages((Path(pattern),), ())
    elif glob.has_magic(pattern):
        path = Path(pattern)
        candidates = _matches(Path(path.anchor), path.parts[bool(path.anchor):], left_out)
    else:
        raise ImageError(f"{name_of(source)}: no such file")
    paths = _each_once(_readable(candidates, suffixes, left_out))
    if not paths:
        skipped = f" ({_summary(left_out)} left out)" if left_out else ""
        raise ImageError(f"{name_of(source)}: no images there{skipped}; their names end in "
                         f"{', '.join(sorted(suffixes))}")
    return FoundImages(paths, tuple(sorted(set(left_out), key=lambda entry: entry.path)))


def _readable(candidates: Iterable[Path], suffixes: frozenset[str], left_out: list[LeftOut]) -> Iterator[Path]:
    """The image files among the candidates; what only looks like one goes to `left_out`."""
    for path in candidates:
        suffix = path.suffix.lower()
        if path.name.startswith(".") or suffix not in suffixes | UNREAD_SUFFIXES:
            continue
        if not path.exists():
            left_out.append(LeftOut(path, BROKEN_LINK))
        elif not path.is_file():
            left_out.append(LeftOut(path, NO_FILE))
        elif suffix in UNREAD_SUFFIXES:
            left_out.append(LeftOut(path, UNREAD_FORMAT))
        else:
            yield path


def _each_once(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Each real file once, by its own path if that is among them, in order."""
    by_file: dict[str, Path] = {}
    for path in sorted(paths):
        real = os.path.realpath(path)
        if real not in by_file or real == os.path.abspath(path):  # noqa: PTH100 - a link must not be followed
            by_file[real] = path
    return tuple(sorted(by_file.values()))


def _matches(folder: Path, parts: Sequence[str], left_out: list[LeftOut]) -> Iterator[Path]:
    """What a glob of these parts matches in a folder: as `glob.glob`, but never in circles."""
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        while rest and rest[0] == "**":
            rest = rest[1:]
        for inner in _folders(folder, left_out):
            yield from _matches(inner, rest or ("*",), left_out)
    elif glob.has_magic(part):
        for entry in _entries(folder, left_out):
            if fnmatch(entry.name, part) and (part.startswith(".") or not entry.name.startswith(".")):
                yield from _matches(entry, rest, left_out)
    elif os.path.lexists(folder / part):
        yield from _matches(folder / part, rest, left_out)


def _folders(top: Path, left_out: list[LeftOut]) -> Iterator[Path]:
    """A folder and all folders within it, at any depth; each real one once, none that is hidden."""
    seen, waiting = set(), [top]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen or not os.path.isdir(folder):  # noqa: PTH112
            continue
        seen.add(real)
        yield folder
        waiting += [entry for entry in _entries(folder, left_out)
                    if not entry.name.startswith(".") and os.path.isdir(entry)]  # noqa: PTH112


def _entries(folder: Path, left_out: list[LeftOut]) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]  # noqa: PTH208 - names only, of any bytes
    except NotADirectoryError:
        return []
    except OSError:
        left_out.append(LeftOut(folder, CLOSED_FOLDER))
        return []


def _summary(left_out: Iterable[LeftOut]) -> str:
    counts = Counter((entry.reason, entry.path.suffix.lower() if entry.reason == UNREAD_FORMAT else "")
                     for entry in left_out)
    return ", ".join(f"{number} x {suffix} ({reason})" if suffix else f"{number} x {reason}"
                     for (reason, suffix), number in sorted(counts.items()))
