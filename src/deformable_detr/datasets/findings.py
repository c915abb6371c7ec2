"""Faults of a data set: gathered for a check, or raised at the first error. The same reading serves both."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

from deformable_detr.datasets.kinds import Fault, Severity
from deformable_detr.text import printable

logger = logging.getLogger(__name__)

MAX_KEPT = 10_000    # findings of a kind that are kept; all are counted
ALLOWED = {Fault.PICTURE_LEAK}      # errors that are not raised


@dataclass(frozen=True)
class Place:
    """A file of a data set, and in it a line, a row of a table, or an entry such as "annotation 7"."""

    file: Path
    line: int | None = None     # from 1; rows of a table from 0
    entry: str = ""

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        return printable(f"{self.file}{line}{': ' if self.entry else ''}{self.entry}")


@dataclass(frozen=True)
class Finding:
    """One fault: where it is, what was found and what was expected."""

    kind: Fault
    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {printable(self.message)}"


class DataError(ValueError):
    """A data set that cannot be used. The message names the file, the entry, what was found and what was expected."""

    def __init__(self, message: str, finding: Finding | None = None) -> None:
        super().__init__(message)
        self.finding = finding


class EntryError(Exception):
    """A fault of an entry, whose place only the caller knows."""

    def __init__(self, kind: Fault, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class Findings:
    """Gathers findings. If `strict`, as for training, the first error is raised as DataError instead.

    Only images that two splits share are never raised: a training may be meant to learn them by heart.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self._counts: Counter[Fault] = Counter()
        self._kept: dict[Fault, list[Finding]] = {kind: [] for kind in Fault}

    def add(self, kind: Fault, place: Place, message: str) -> None:
        """Add one finding."""
        self.add_all(kind, 1, [(place, message)])

    def add_all(self, kind: Fault, count: int, found: Iterable[tuple[Place, str]]) -> None:
        """Add `count` findings of a kind. Of `found`, which may be lazy, only as many are taken as are kept."""
        if self.strict and kind.severity == "error" and kind not in ALLOWED and count:
            first = Finding(kind, *next(iter(found)))
            raise DataError(f"{first}{f' (and {count - 1} more like it)' if count > 1 else ''}", first)
        kept = self._kept[kind]
        room = (1 if self.strict else MAX_KEPT) - len(kept)
        kept.extend(Finding(kind, *parts) for parts in islice(found, min(count, max(0, room))))
        self._counts[kind] += count

    def has(self, kind: Fault, place: Place) -> bool:
        """Whether there is a finding of this kind at this place."""
        return any(finding.place == place for finding in self._kept[kind])

    def merge(self, other: "Findings") -> None:
        """Add all findings of another."""
        for kind, count, kept in other.groups():
            self.add_all(kind, count, ((finding.place, finding.message) for finding in kept))

    def groups(self) -> list[tuple[Fault, int, list[Finding]]]:
        """Each kind that was found, its count, and the findings that were kept; errors first."""
        return [(kind, self._counts[kind], self._kept[kind]) for kind in Fault if self._counts[kind]]

    def count(self, severity: Severity) -> int:
        """How many findings have this severity."""
        return sum(count for kind, count, _ in self.groups() if kind.severity == severity)

    def log(self) -> None:
        """Log one line for each kind, with its first finding."""
        for kind, count, kept in self.groups():
            logger.warning("%s: %d (first: %s)", kind.title, count, kept[0])


def stop(kind: Fault, place: Place, message: str) -> NoReturn:
    """Raise DataError for a fault that leaves nothing to go on with, strict or not."""
    finding = Finding(kind, place, message)
    raise DataError(str(finding), finding)
