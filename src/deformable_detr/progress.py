"""Progress of long work on standard error: a bar on a terminal, elsewhere a plain line now and then."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 20.0


@runtime_checkable
class Progress(Protocol):
    """Long work passes its items through this, which yields them one by one and may show how many are done."""

    def __call__(self, items: Iterable[Item], total: int | None, title: str,
                 status: Callable[[], str] = str) -> Iterable[Item]:
        """`total` is None where nobody knows how many there are. `status` returns more text to show, whenever."""
        ...


def no_progress(items: Iterable[Item], total: int | None, title: str,  # noqa: ARG001 - the signature of Progress
                status: Callable[[], str] = str) -> Iterable[Item]:  # noqa: ARG001
    """Shows nothing: the default of libraries."""
    return items


def show_progress(items: Iterable[Item], total: int | None, title: str,
                  status: Callable[[], str] = str) -> Iterator[Item]:
    """The items one by one, as Progress: a bar on a terminal, plain lines for a file or a pipe."""
    shown = _bar if sys.stderr.isatty() else _lines
    yield from shown(items, total, title, status)


def _bar(items: Iterable[Item], total: int | None, title: str, status: Callable[[], str]) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[status]}"))
    # Lines for a terminal go above the bar; those for a file or a pipe must not be caught.
    console = Console(stderr=True)
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty(), transient=True) as progress:
        task = progress.add_task(title, total=total, status="")
        for item in items:
            yield item
            progress.update(task, advance=1, status=status())


def _lines(items: Iterable[Item], total: int | None, title: str, status: Callable[[], str]) -> Iterator[Item]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if (total is None or done < total) and now - last >= SECONDS_BETWEEN_LINES:
            last = now
            sys.stderr.write(f"{title} {_part(done, total, now - start)}, {status()}".rstrip(" ,") + "\n")
            sys.stderr.flush()


def _part(done: int, total: int | None, seconds: float) -> str:
    """How many of how many, and how long the rest will take."""
    if total is None:
        return str(done)
    return f"{done}/{total}, {timedelta(seconds=round(seconds / done * (total - done)))} left"
