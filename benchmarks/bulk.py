"""Many images: `python benchmarks/bulk.py [--model packaged|r50] [--images FOLDER] [--count 24] [--repeats 3]`.

Milliseconds an image, read and decoded from files: one by one in float32, then streamed, by batch size and precision.
What each case detects is first compared with one by one in float32. Without a folder the images are the packaged ones
in one size, then in six. `--memory 10000` only streams that many, and prints how the process grows after the first 200.
"""

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import timed
from PIL import Image
from published import build_ours

from deformable_detr import Detections, Detector
from deformable_detr.detect.precision import Precision
from deformable_detr.images import find_images
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo
from deformable_detr.weights.sources import packaged_images

ONE_SIZE = [(640, 480)]
MIXED_SIZES = [(640, 480), (480, 640), (512, 512), (1280, 720), (1600, 1200), (500, 375)]     # (width, height)
COUNTED = 0.3       # the lowest score of a detection that must be found again, if only with half of it
KNOWN_AFTER = 200   # images, after which memory should not grow


def packaged(precision: Precision, batch_size: int | str) -> Detector:
    return Detector("demo", "cpu", precision=precision, batch_size=batch_size)  # type: ignore[arg-type]


def r50(precision: Precision, batch_size: int | str) -> Detector:
    """Multi-scale, 800 pixels, with random weights: what it detects means nothing, but can be compared."""
    model = build_ours("multi-scale")
    names = tuple(str(index) for index in range(model.config.num_classes))
    info = ModelInfo(names, tuple(range(len(names))), Preprocessing(size=800, max_size=1333))
    return Detector.from_model(model, info, precision=precision, batch_size=batch_size)  # type: ignore[arg-type]


def written(folder: Path, sizes: Sequence[tuple[int, int]], count: int) -> list[Path]:
    """Files of the packaged images in these sizes, in turns."""
    paths = [folder / f"{index}.jpg" for index in range(count)]
    for path, picture, size in zip(paths, itertools.cycle(packaged_images()), itertools.cycle(sizes), strict=False):
        Image.open(picture).convert("RGB").resize(size).save(path, quality=90)
    return paths


def one_by_one(detector: Detector, paths: Sequence[Path]) -> list[Detections]:
    return [detector(path, COUNTED / 2) for path in paths]


def streamed(detector: Detector, paths: Sequence[Path]) -> list[Detections]:
    results = list(detector.stream(paths, COUNTED / 2))
    found = [each for each in results if isinstance(each, Detections)]
    assert len(found) == len(paths), [each for each in results if not isinstance(each, Detections)]
    return found


def shift(found: Sequence[Detections], expected: Sequence[Detections]) -> str:
    """How far the nearest box of the class is from each expected one."""
    distances, missing = [], 0
    for ours, right in zip(found, expected, strict=True):
        for each in right.above(COUNTED):
            same = ours.boxes[ours.labels == each.label]
            missing += not len(same)
            distances += [float(np.abs(same - each.box).max(axis=1).min())] if len(same) else []
    if not distances:
        return "nothing to compare"
    return (f"{len(distances)} boxes: {statistics.mean(distances):.3f} px in the mean, {max(distances):.2f} at most; "
            f"classes missing: {missing}")


def measure(build: Callable[..., Detector], paths: Sequence[Path], title: str, repeats: int) -> None:
    first = build("fp32", 1)
    cases: dict[str, Callable[[], list[Detections]]] = {"one by one, fp32": partial(one_by_one, first, paths)}
    for precision in ("fp32", "bf16"):
        for batch_size in (1, "auto", 4):
            detector = build(precision, batch_size)
            cases[f"stream, {precision}, batch {batch_size}"] = partial(streamed, detector, paths)
    found = {name: case() for name, case in cases.items()}
    expected = next(iter(found.values()))
    times = timed(dict(cases), repeats)
    base = statistics.median(next(iter(times.values())))
    print(f"\n{title}, {len(paths)} images\n\n| | ms an image: median (minimum) | times one by one | shift of boxes |")
    print("|---|---|---|---|")
    for name, each in times.items():
        median = statistics.median(each)
        print(f"| {name} | {median / len(paths):.1f} ({min(each) / len(paths):.1f}) | {base / median:.2f} | "
              f"{shift(found[name], expected)} |", flush=True)


def measure_memory(detector: Detector, paths: Sequence[Path], count: int) -> None:
    held = []
    for done, _ in enumerate(detector.stream(itertools.islice(itertools.cycle(paths), count)), start=1):
        if done >= KNOWN_AFTER:
            held.append(int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024)
    print(f"{count} images: {held[0]:.0f} MiB after {KNOWN_AFTER}, then {min(held):.0f} to {max(held):.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("packaged", "r50"), default="packaged")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, metavar="COUNT")
    options = parser.parse_args()
    chosen = packaged if options.model == "packaged" else r50
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.model}")
    with tempfile.TemporaryDirectory() as temporary:
        if options.images:
            sets = {str(options.images): list(find_images(options.images))[:options.count]}
        else:
            sets = {}
            for title, sizes in (("one size", ONE_SIZE), ("mixed sizes", MIXED_SIZES)):
                folder = Path(temporary, title)
                folder.mkdir()
                sets[title] = written(folder, sizes, options.count)
        if options.memory:
            measure_memory(chosen("fp32", 4), list(sets.values())[-1], options.memory)
        else:
            for title, paths in sets.items():
                measure(chosen, paths, title, options.repeats)
