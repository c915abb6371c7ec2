"""Python programs in processes of their own, which are forked from one that has imported torch and the package.

That saves each of them five seconds. Two things are not as with `python PROGRAM`: variables that are read during an
import must have been in the environment of the tests, and what `atexit` knows does not run.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

# What a training imports sooner or later. None of these starts threads, which would not survive the fork.
IMPORTED = ["deformable_detr.cli", "deformable_detr.training.loop", "deformable_detr.training.run_report",
            "deformable_detr.check.checkup", "deformable_detr.evaluation", "deformable_detr.ops.cpu", "scipy.optimize"]

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(IMPORTED)


def run_program(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS`, for a file or -m and a module; its standard output is thrown away."""
    return run_side_by_side([arguments], [{}])[0]


def run_side_by_side(programs: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]],
                     threads: int | None = None, timeout: float = 240) -> list[subprocess.CompletedProcess[str]]:
    """Several programs at once, each with what is added to its environment and this many threads of torch."""
    with TemporaryDirectory() as folder:
        logs = [Path(folder, str(index)) for index in range(len(programs))]
        processes = [_forking.Process(target=_become, args=(program, {**os.environ, **environment}, threads, log))
                     for program, environment, log in zip(programs, environments, logs, strict=True)]
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(timeout)
            return [subprocess.CompletedProcess(program, process.exitcode, stderr=log.read_text())
                    for program, process, log in zip(programs, processes, logs, strict=True)]
        finally:
            for process in processes:
                process.kill()


def _become(program: Sequence[str], environment: Mapping[str, str], threads: int | None, log: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
    multiprocessing.set_start_method(None, force=True)      # the program's own processes start as they do elsewhere
    os.environ.update(environment)
    if threads is not None:
        torch.set_num_threads(threads)
    if program[0] == "-m":
        sys.argv = list(program[1:])
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(program)
        runpy.run_path(program[0], run_name="__main__")
