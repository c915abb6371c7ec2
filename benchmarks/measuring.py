"""What the benchmarks share: cases that take turns, and the peak of a process."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


def timed(cases: dict[str, Callable[[], object]], repeats: int, device: str = "cpu") -> dict[str, list[float]]:
    """Milliseconds of each case; they take turns, so that what slows the machine down slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if device == "cuda":
                torch.cuda.synchronize()
            times[name].append(1000 * (time.perf_counter() - start))
    return times


def cell(times: list[float], ours: list[float]) -> str:
    """Median, minimum, and the ratio of medians, for a table."""
    median = statistics.median(times)
    return f"{median:.1f} ({min(times):.1f}) | {median / statistics.median(ours):.1f}"


def added_peak(call: Callable[[], object]) -> float:
    """MiB that a call adds to what this process holds, at its peak. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")   # the peak is now what is held
    before = _peak_kib()
    call()
    return (_peak_kib() - before) / 1024


def _peak_kib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
