"""What the benchmarks share: cases that take turns, and the peak of a process."""

import argparse
import ctypes
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


def timed(cases: dict[str, Callable[[], object]], repeats: int, device: str = "cpu", *,
          in_sequence: bool = False) -> dict[str, list[float]]:
    """Milliseconds of each case; they take turns, so that what slows the machine down slows all of them.

    With `in_sequence` a turn is two calls and the second counts, as steps and images follow their like: the first
    one behind another case has to ask the system again for the memory that was given back meanwhile.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            if in_sequence:
                case()
            start = time.perf_counter()
            case()
            if device == "cuda":
                torch.cuda.synchronize()
            times[name].append(1000 * (time.perf_counter() - start))
    return times


def run_cases(description: str | None, build: Callable[..., dict[str, Callable[[], object]]],
              compare: Callable[[dict[str, Any]], None], title: str, presets: Sequence[str] = (),
              then: Callable[[str | None, int], None] | None = None, precisions: Sequence[str] = ()) -> None:
    """The command line of a benchmark: compare the cases' results, time them, print a table; one may be the "floor".

    `build` makes the cases, of one of the `presets` and in one of the `precisions`, if there are any. The peak of each
    case is measured in a process of its own, which runs the same file with `--peak`. `then` is called last, with the
    preset and the repeats, for float32 alone.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", metavar="CASE", help="only print the MiB that this case adds")
    parser.add_argument("--preset", choices=presets or None, default=next(iter(presets), None))
    parser.add_argument("--precision", choices=precisions or None, default=next(iter(precisions), None))
    options = parser.parse_args()
    cases = build(*filter(None, (options.preset, options.precision)))
    if options.peak:
        cases[options.peak]()
        print(added_peak(cases[options.peak]))
        return
    compare({name: case() for name, case in cases.items()})
    times = timed(cases, options.repeats, in_sequence=True)
    what = f"{options.preset}, {title}" if presets else title
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {what}, {options.precision or 'fp32'}\n")
    print("| | ms: median (minimum) | times ours | MiB added at the peak |\n|---|---|---|---|")
    for name, each in times.items():
        peak = "" if name == "floor" else f"{_peak_of(name, options):.0f}"
        print(f"| {name} | {cell(each, times['deformable_detr'])} | {peak} |", flush=True)
    if "floor" in times:
        ratio = statistics.median(times["deformable_detr"]) / statistics.median(times["floor"])
        print(f"\nours is {ratio:.2f} times the floor")
    if then is not None and options.precision == "fp32":
        then(options.preset, options.repeats)


def _peak_of(case: str, options: argparse.Namespace) -> float:
    flags = ["--peak", case]
    for name in ("preset", "precision"):
        flags += [f"--{name}", getattr(options, name)] if getattr(options, name) else []
    output = subprocess.run([sys.executable, sys.argv[0], *flags], check=True, capture_output=True, text=True)
    return float(output.stdout.split()[-1])


def cell(times: list[float], ours: list[float]) -> str:
    """Median, minimum, and the ratio of medians, for a table."""
    median = statistics.median(times)
    return f"{median:.1f} ({min(times):.1f}) | {median / statistics.median(ours):.2f}"


def slope(points: Sequence[tuple[float, float]]) -> float:
    """By which power the second number grows with the first: the slope of a line through their logarithms."""
    sizes, times = ([math.log(number) for number in numbers] for numbers in zip(*points, strict=True))
    return statistics.linear_regression(sizes, times).slope


def added_peak(call: Callable[[], object]) -> float:
    """MiB that a call adds to what this process holds, at its peak. Linux with glibc only."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)         # what was freed before is not held
    Path("/proc/self/clear_refs").write_text("5")   # the peak is now what is held
    before = _peak_kib()
    call()
    return (_peak_kib() - before) / 1024


def _peak_kib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
