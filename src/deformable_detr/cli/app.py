"""What all commands share: the app they register with, how they print, and how a wrong call ends."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, validators

from deformable_detr import __version__
from deformable_detr.text import printable

app = App(name="ddetr", version=__version__, help_format="plaintext",
          help="Deformable DETR: train, evaluate and look inside an object detector.")

# What `main` is running, as it would be typed.
command_line: ContextVar[str] = ContextVar("command_line", default="")

Share = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=1))]
JsonFlag = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]

INTERRUPTED = 130   # the exit code of a command that Ctrl-C has ended, as shells have it


class WrongCallError(Exception):
    """A call that cannot work: the message says which argument, what came and what was expected."""


def report_error(message: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"ddetr: {printable(' '.join(message.split()))}\n")


def log_to_stderr() -> None:
    """Show what the package has to say while it works; of several processes the first talks, the others warn."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("deformable_detr")
    package.handlers = [handler]
    package.setLevel(logging.INFO if is_first_process() else logging.WARNING)


def is_first_process() -> bool:
    """Whether this process is the only one of a training, or the one that talks."""
    return os.environ.get("RANK", "0") == "0"


def print_line(line: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def wrong_call_for(*errors: type[Exception]) -> Iterator[None]:
    """Where these errors mean that an argument was wrong."""
    try:
        yield
    except BrokenPipeError:   # the reader of our output has seen enough, which is no argument's fault
        raise
    except errors as error:
        raise WrongCallError(str(error)) from error


def check_weights_exist(weights: str) -> None:
    """Refuse a missing file at once, before the seconds that it takes to import torch."""
    if weights != "demo" and not weights.startswith("hf:") and not Path(weights).is_file():
        raise WrongCallError(f"--weights: expected \"demo\", \"hf:owner/name\" or a file, got {weights!r}")
