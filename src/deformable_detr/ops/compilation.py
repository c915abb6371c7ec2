"""Compile functions with Numba: the cache on disk, and a line in the log before a kernel takes seconds to compile."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, no_type_check

import numba
from filelock import FileLock
from numba import types
from numba.core import event

logger = logging.getLogger("deformable_detr.ops")
_one_loop_at_a_time = Lock()


def compiled(**options: Any) -> Callable[[Callable], Any]:
    """`numba.njit` as a decorator: compiled at the first call for the types of its arguments, and kept on disk."""

    def decorate(function: Callable) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # Numba found no folder that it can write to
            return numba.njit(**options)(function)

    return decorate


def compiled_kernel(signature: str, name: str, symbol: str, **options: Any) -> Callable[[Callable], Any]:
    """As `compiled`, but for these types only, and at once: loaded from disk, or compiled after a line in the log.

    Args:
        signature: types of result and arguments, as Numba writes them.
        name: what the log calls the kernel.
        symbol: an identifier of its own for each kernel. Two that were compiled in two processes could have the same
            symbol otherwise, and whoever loads both from the disk would call one for the other.
    """

    def decorate(function: Callable) -> Any:
        function.__qualname__ = symbol
        with event.install_listener("numba:compile", _Announcement(function, name)):
            return _compile(function, signature, options)

    return decorate


def _compile(function: Callable, signature: Any, options: dict[str, Any]) -> Any:
    """Compile for these types, or load from disk, one process at a time.

    Numba numbers the files of its cache. Of two processes that save at once each could take the other's number, and
    code for other types would be loaded.
    """
    dispatcher = compiled(**options)(function)
    if dispatcher is function:   # NUMBA_DISABLE_JIT=1
        return function
    with _one_process_at_a_time(dispatcher.stats.cache_path):
        dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


@contextmanager
def _one_process_at_a_time(cache_folder: str | None) -> Iterator[None]:
    """Wait until no other process compiles into this folder; a process that is killed does not hold the others up."""
    if cache_folder is None:
        yield
        return
    folder = Path(cache_folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "compiling.lock", mode=0o666):
        yield


def parallel_loop(argument_types: tuple[types.Type, ...]) -> Any:
    """A loop over tasks, called as (kernel, num_tasks, arguments), for kernels whose arguments have these types.

    The kernel is an argument: compiled with a parallel loop inside, each would take twice as long.
    """
    with _one_loop_at_a_time:
        return _build_loop(argument_types)


@cache
def _build_loop(argument_types: tuple[types.Type, ...]) -> Any:
    kernel = types.FunctionType(types.void(*argument_types))
    _, _, *others = argument_types   # after first_task and end_task
    signature = types.void(kernel, types.int64, types.Tuple(others))

    @no_type_check
    def loop(kernel, num_tasks, arguments):
        for task in numba.prange(num_tasks):
            first_task = numba.int64(task)
            kernel(first_task, first_task + 1, *arguments)

    return _compile(loop, signature, {"parallel": True, "nogil": True})


class _Announcement(event.Listener):
    """Logs that a function is being compiled. Numba sends no such event for what it loads from disk."""

    def __init__(self, function: Callable, name: str) -> None:
        self.function, self.name = function, name

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if dispatcher.py_func is not self.function:
            return
        kept = "once per machine" if dispatcher.stats.cache_path else (
            "in every process, as no folder for the result can be written (see NUMBA_CACHE_DIR)")
        logger.info("Compiling the %s for this CPU, %s: some seconds, more on a busy machine.", self.name, kept)

    def on_end(self, event: Any) -> None:
        """Required by Numba."""
