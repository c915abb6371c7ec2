"""What all commands share: the app they register with, their messages, and how a wrong call ends."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

from cyclopts import App, Parameter, Token, validators

from deformable_detr import __version__
from deformable_detr.progress import Progress, no_progress, show_progress
from deformable_detr.text import printable
from deformable_detr.training.processes import is_first_process

if TYPE_CHECKING:
    from rich.console import Console

app = App(name="ddetr", version=__version__, help_format="plaintext",
          help="Deformable DETR: train, evaluate and look inside an object detector.")

# What `main` is running, as it would be typed.
command_line: ContextVar[str] = ContextVar("command_line", default="")

INTERRUPTED = 130   # the exit code of a command ended by Ctrl-C, as in shells
UNBROKEN = 100_000  # characters of a line in a file or a pipe


def _local_path(_: object, tokens: Sequence[Token]) -> Path:
    """Path would make https:/ of https://"""
    if "://" in tokens[0].value:
        raise ValueError(f"expected a path on this machine, got {tokens[0].value}")
    return Path(tokens[0].value)


def _check_batch_size(_: object, value: int | str) -> None:
    if isinstance(value, int) and value < 1:
        raise ValueError(f"expected \"auto\" or a whole number of at least 1, got {value}")


_is_share = Parameter(validator=validators.Number(gte=0, lte=1))
OptionalShare = Annotated[float | None, _is_share]
_is_count = Parameter(validator=validators.Number(gte=1))
Count = Annotated[int, _is_count]
OptionalCount = Annotated[int | None, _is_count]
BatchSize = Annotated[int | Literal["auto"], Parameter(validator=_check_batch_size)]
TilesFlag = Annotated[bool, Parameter(negative=(), show_default=False)]
PrecisionFlag = Literal["fp32", "auto", "bf16", "fp16"]
_is_local = Parameter(converter=_local_path, n_tokens=1, accepts_keys=False)
LocalPath = Annotated[Path, _is_local]
OptionalPath = Annotated[Path | None, _is_local]
JsonFlag = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]


class WrongCallError(Exception):
    """A call that cannot work: the message says which argument, what came and what was expected."""


@dataclass(frozen=True)
class Messages:
    """How much a command prints on standard error.

    Attributes:
        quiet: Only results, warnings and errors: no progress, no notes.
        verbose: Also which files, devices and settings are used.
    """

    quiet: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    verbose: Annotated[bool, Parameter(negative=(), show_default=False)] = False

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise ValueError("--quiet and --verbose: expected one of them, got both")

    def start(self) -> None:
        """Show the package's log. Of several processes only the first reports progress; the others warn."""
        package = logging.getLogger("deformable_detr")
        package.handlers = [_Lines()]
        if self.quiet or not is_first_process():
            package.setLevel(logging.WARNING)
        else:
            package.setLevel(logging.DEBUG if self.verbose else logging.INFO)

    @property
    def progress(self) -> Progress:
        """What shows how far a command is."""
        return no_progress if self.quiet else show_progress


MessageFlags = Annotated[Messages, Parameter(name="*", group="Messages")]
USUAL = Messages()


class _Lines(logging.Handler):
    """Each message as lines on whatever standard error is now: a progress bar replaces it for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        for line in record.getMessage().splitlines():
            sys.stderr.write(printable(line) + "\n")


def end_process(code: int) -> NoReturn:
    """End at once, without destroying what is in memory."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def report_error(message: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"ddetr: {printable(' '.join(message.split()))}\n")


def print_line(line: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def output_console() -> "Console":
    """Standard output for tables. In a file or a pipe no line is broken."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBROKEN
    return console


@contextmanager
def wrong_call_for(*errors: type[Exception]) -> Iterator[None]:
    """Where these errors mean that an argument was wrong."""
    try:
        yield
    except BrokenPipeError:   # the reader of our output has closed it, which is no argument's fault
        raise
    except errors as error:
        raise WrongCallError(str(error)) from error


def refuse_no_data(data: Path) -> None:
    """Refuse a folder that holds no data set: before the seconds that importing torch takes."""
    from deformable_detr.datasets.findings import DataError, Findings
    from deformable_detr.datasets.folder import DataFolder

    try:
        DataFolder(data, Findings())
    except DataError as error:
        if error.finding is None:       # otherwise there is one, with a fault that is reported later
            raise WrongCallError(str(error)) from error


def find_weights_file(weights: str) -> Path:
    """The file or folder of weights, fetched if need be: before the seconds that importing torch takes."""
    from deformable_detr.weights import WeightsError
    from deformable_detr.weights.sources import check_exists, find_weights

    with wrong_call_for(WeightsError):
        check_exists(weights)
        return find_weights(weights, show_bars=sys.stderr.isatty())
