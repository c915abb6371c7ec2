"""Run the tasks of a CPU kernel on as many threads as torch uses.

These are ordinary Python threads, as the kernels do not hold the GIL. Numba's own parallel loops would take twice as
long to compile, and their OpenMP layer kills a forked process that calls a kernel.
"""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from types import FunctionType
from typing import Any

import torch

PARTS_PER_THREAD = 4   # so that a thread that is held up does not hold up the others


def run_tasks(kernel: Callable[..., None], num_tasks: int, *arguments: Any) -> None:
    """Call `kernel(first_task, end_task, *arguments)` until all tasks are done, in any order.

    With NUMBA_DISABLE_JIT=1 a kernel is a Python function: all tasks run in this thread, where a debugger can follow.
    """
    _protect_forked_processes()
    cores = os.cpu_count() or 1
    num_threads = 1 if isinstance(kernel, FunctionType) else min(torch.get_num_threads(), cores)
    num_parts = 1 if num_threads == 1 else max(1, min(num_threads * PARTS_PER_THREAD, num_tasks))
    parts = deque(pairwise(num_tasks * part // num_parts for part in range(num_parts + 1)))
    num_helpers = min(num_threads, num_parts) - 1

    def work() -> None:
        while parts:
            try:
                first_task, end_task = parts.popleft()
            except IndexError:  # another thread took the last part
                return
            kernel(first_task, end_task, *arguments)

    helpers = [_pool(os.getpid(), cores).submit(work) for _ in range(num_helpers)]
    work()
    for helper in helpers:
        if not helper.cancel():  # it has started, and may be at its last part
            helper.result()


@cache
def _protect_forked_processes() -> None:
    """Give torch one thread in processes that are forked from now on, as its own data loader does.

    The threads of torch's OpenMP do not exist in a forked process, where torch would wait for them forever.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


@cache
def _pool(process: int, size: int) -> ThreadPoolExecutor:
    """The threads of this process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(size, thread_name_prefix=f"deformable-attention-{process}")
