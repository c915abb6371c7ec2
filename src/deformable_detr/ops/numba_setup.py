"""How kernels are compiled and launched with Numba: cache on disk, threads, and a word in the log."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import numba
import torch
from numba.core import event
from numba.np.ufunc.parallel import threading_layer

_log = logging.getLogger(__name__)
_one_launch = threading.Lock()
_kernels: list[Any] = []


def compiled(*, parallel: bool, **options: Any) -> Callable[[Callable], Callable]:
    """`numba.njit` as a decorator, with a cache on disk where there is a folder for it."""

    def decorate(function: Callable) -> Callable:
        try:
            dispatcher = numba.njit(cache=True, parallel=parallel, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's can be written
            _say_that_nothing_is_kept()
            dispatcher = numba.njit(parallel=parallel, **options)(function)
        if parallel:
            _kernels.append(dispatcher)
        return dispatcher

    return decorate


@cache
def _say_that_nothing_is_kept() -> None:
    _log.info("nowhere to keep compiled kernels (NUMBA_CACHE_DIR): each process compiles its own")


@contextmanager
def torch_threads() -> Iterator[None]:
    """Launch kernels on as many threads as torch uses, and leave the caller's own Numba setting as it was."""
    with _launch_guard():
        threads, before = torch.get_num_threads(), numba.get_num_threads()  # in this order, see below
        most = numba.config.NUMBA_NUM_THREADS  # pyright: ignore
        numba.set_num_threads(min(threads, most))
        try:
            yield
        finally:
            numba.set_num_threads(before)
            # Numba's first word, which the question above may be, sets the OpenMP that torch uses too.
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def _launch_guard() -> AbstractContextManager:
    """A lock where two launches at once would go wrong: in the workqueue layer, or before one is chosen."""
    try:
        layer = threading_layer()
    except ValueError:  # nothing has been launched yet
        return _one_launch
    return _one_launch if layer == "workqueue" else nullcontext()


class _CompilationMessage(event.Listener):
    """Says in the log why a first call takes seconds."""

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if any(dispatcher is kernel for kernel in _kernels):
            _log.info("compiling %s for this CPU; it takes some seconds", dispatcher.py_func.__name__)

    def on_end(self, event: Any) -> None:
        """Nothing to say, but Numba asks for this method."""


event.register("numba:compile", _CompilationMessage())
