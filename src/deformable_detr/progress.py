"""How far long work is: a bar on a terminal, now and then a line elsewhere. Always on standard error."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 20.0


def show_progress(items: Iterable[Item], total: int, title: str,
                  status: Callable[[], str] = str) -> Iterator[Item]:
    """The items one by one. `status` says what else to show, asked for whenever something is shown."""
    shown = _bar if sys.stderr.isatty() else _lines
    yield from shown(items, total, title, status)


def _bar(items: Iterable[Item], total: int, title: str, status: Callable[[], str]) -> Iterator[Item]:
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


def _lines(items: Iterable[Item], total: int, title: str, status: Callable[[], str]) -> Iterator[Item]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done < total and now - last >= SECONDS_BETWEEN_LINES:
            last = now
            left = timedelta(seconds=round((now - start) / done * (total - done)))
            sys.stderr.write(f"{title} {done}/{total}, {left} left {status()}".rstrip() + "\n")
            sys.stderr.flush()
