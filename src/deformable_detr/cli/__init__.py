"""The `ddetr` command. Each command is a short function that imports what it needs only when it runs.

A command returns its exit code: 0 when all went well, 1 when some input failed and the rest is done. A call
that cannot work at all raises WrongCallError, which `main` prints as one line, and returns 2.
"""

import gc
import io
import os
import shlex
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError, UnknownCommandError, UnknownOptionError

from deformable_detr.cli import (  # noqa: F401  (each registers its command)
    check,
    convert,
    demo,
    detect,
    doctor,
    evaluate,
    explain,
    export,
    serve,
    trace,
    train,
    weights,
)
from deformable_detr.cli.app import (
    INTERRUPTED,
    WrongCallError,
    app,
    command_line,
    end_process,
    report_error,
    wrong_call_for,
)
from deformable_detr.cli.hints import hint
from deformable_detr.cli.inputs import STANDARD_INPUT

NEW_OBJECTS = 100_000   # before garbage is looked for: Python's default costs a quarter of the time to a first box

__all__ = ["app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    gc.set_threshold(NEW_OBJECTS)
    sys.stdout = sys.stdout or open(os.devnull, "w")   # noqa: PTH123, SIM115 - None if the caller has closed it
    sys.stderr = sys.stderr or open(os.devnull, "w")   # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")   # any file name can be printed on any terminal
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        report_error("interrupted")
        if arguments is None:
            end_process(INTERRUPTED)    # torch and timm take seconds to be destroyed
        return INTERRUPTED


def _run(tokens: list[str]) -> int:
    command_line.set(shlex.join(["ddetr", *tokens]))
    tokens = [STANDARD_INPUT if token == "-" else token for token in tokens]      # which cyclopts takes for an option
    try:
        with wrong_call_for(ValueError):   # a config or recipe that cannot be
            command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        return command(*bound.args, **bound.kwargs) or 0
    except CycloptsError as error:
        is_unknown = isinstance(error, UnknownCommandError | UnknownOptionError)
        report_error((is_unknown and hint(tokens)) or str(error))
        return 2
    except WrongCallError as error:
        report_error(str(error))
        return 2
    except OSError as error:
        if not isinstance(error, BrokenPipeError):   # `ddetr ... | head`: the reader has closed it
            report_error(str(error))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())   # for the flush when Python exits
        return 1
