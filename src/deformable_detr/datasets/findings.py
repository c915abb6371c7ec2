"""What is wrong with a data set: gathered, or raised at the first error. The same reading serves both."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

from deformable_detr.datasets.kinds import Kind, Severity
from deformable_detr.text import printable

logger = logging.getLogger(__name__)

MAX_KEPT = 10_000    # findings of a kind that are kept; all are counted


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
    """One fault: where it is, what came and what was expected."""

    kind: Kind
    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {printable(self.message)}"


class DataError(ValueError):
    """A data set that cannot be used: which file, which entry, what came and what was expected."""

    def __init__(self, message: str, finding: Finding | None = None) -> None:
        # A loader's worker process hands its error over as one text, traceback first: the message is its end.
        super().__init__(message.rpartition("DataError: ")[2].rstrip())
        self.finding = finding


class EntryError(Exception):
    """What is wrong with an entry; whoever reads the entries knows where it stands."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class Findings:
    """Gathers findings. A strict one, for training, raises the first error as DataError instead."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self._counts: Counter[Kind] = Counter()
        self._kept: dict[Kind, list[Finding]] = {kind: [] for kind in Kind}

    def add(self, kind: Kind, place: Place, message: str) -> None:
        """Take one finding."""
        self.add_all(kind, 1, [(place, message)])

    def add_all(self, kind: Kind, count: int, found: Iterable[tuple[Place, str]]) -> None:
        """Take `count` findings of a kind; of `found` no more is asked for than is kept."""
        if self.strict and kind.severity == "error" and count:
            first = Finding(kind, *next(iter(found)))
            raise DataError(f"{first}{f' (and {count - 1} more like it)' if count > 1 else ''}", first)
        kept = self._kept[kind]
        room = (1 if self.strict else MAX_KEPT) - len(kept)
        kept.extend(Finding(kind, *parts) for parts in islice(found, min(count, max(0, room))))
        self._counts[kind] += count

    def take(self, other: "Findings") -> None:
        """Take all that another has gathered."""
        for kind, count, kept in other.groups():
            self.add_all(kind, count, ((finding.place, finding.message) for finding in kept))

    def groups(self) -> list[tuple[Kind, int, list[Finding]]]:
        """Each kind that was found, its number, and the findings that were kept; errors first."""
        return [(kind, self._counts[kind], self._kept[kind]) for kind in Kind if self._counts[kind]]

    def count(self, severity: Severity) -> int:
        """How many findings are as bad as that."""
        return sum(count for kind, count, _ in self.groups() if kind.severity == severity)

    def log(self) -> None:
        """A line a kind of warning, with the first finding."""
        for kind, count, kept in self.groups():
            logger.warning("%s: %d (first: %s)", kind.title, count, kept[0])


def stop(kind: Kind, place: Place, message: str) -> NoReturn:
    """Raise DataError for what leaves nothing to go on with, however strict one is."""
    finding = Finding(kind, place, message)
    raise DataError(str(finding), finding)
