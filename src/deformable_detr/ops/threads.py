"""Run the tasks of a CPU kernel on as many threads as torch uses.

On Linux these are torch's own: Numba's OpenMP layer shares them. Threads beside them would wait for a core, since
OpenMP's threads keep theirs busy for some milliseconds after each operation of torch. Where Numba has no OpenMP, as on
most Macs, they are ordinary Python threads, as the kernels do not hold the GIL.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from threading import Lock
from typing import Any

import numba
import torch
from numba.np.ufunc.parallel import threading_layer

from deformable_detr.ops.compilation import parallel_loop

PARTS_PER_THREAD = 4   # so that a thread that is held up does not hold up the others
_first_launch = Lock()


def run_tasks(kernel: Any, num_tasks: int, *arguments: Any) -> None:
    """Call `kernel(first_task, end_task, *arguments)` until all tasks are done, in any order.

    With NUMBA_DISABLE_JIT=1 a kernel is a Python function: all tasks run in this thread, where a debugger can follow.
    """
    process, num_threads = _first_process(), min(torch.get_num_threads(), os.cpu_count() or 1, num_tasks)
    if num_threads <= 1 or not hasattr(kernel, "signatures"):
        kernel(0, num_tasks, *arguments)
    elif process == os.getpid() and _has_openmp():   # in a forked process Numba's OpenMP ends the process
        with _numba_threads(num_threads):
            parallel_loop(kernel.signatures[0])(kernel, num_tasks, arguments)
    else:
        _run_on_python_threads(kernel, num_tasks, num_threads, arguments)


def _run_on_python_threads(kernel: Callable[..., None], num_tasks: int, num_threads: int,
                           arguments: tuple[Any, ...]) -> None:
    num_parts = min(num_threads * PARTS_PER_THREAD, num_tasks)
    parts = deque(pairwise(num_tasks * part // num_parts for part in range(num_parts + 1)))

    def work() -> None:
        while parts:
            try:
                first_task, end_task = parts.popleft()
            except IndexError:  # another thread took the last part
                return
            kernel(first_task, end_task, *arguments)

    helpers = [_pool(os.getpid(), os.cpu_count() or 1).submit(work) for _ in range(num_threads - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():  # it has started, and may be at its last part
            helper.result()


@contextmanager
def _numba_threads(num_threads: int) -> Iterator[None]:
    """Let Numba use this many threads, and leave the caller's setting as it was."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(num_threads, numba.config.NUMBA_NUM_THREADS))  # pyright: ignore
    try:
        yield
    finally:
        numba.set_num_threads(before)


@cache
def _has_openmp() -> bool:
    """Whether Numba runs parallel loops with OpenMP. Its first launch changes torch's threads, which is undone."""
    with _first_launch:
        threads = torch.get_num_threads()
        numba.get_num_threads()
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return threading_layer() == "omp"


@cache
def _first_process() -> int:
    """The process that ran the first kernel. Those forked from it later get one thread of torch's, as its own data
    loader does: the threads of torch's OpenMP do not exist there, and torch would wait for them forever."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
    return os.getpid()


@cache
def _pool(process: int, size: int) -> ThreadPoolExecutor:
    """The threads of this process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(size, thread_name_prefix=f"deformable-attention-{process}")
