"""How long a large COCO file takes to open, and how much memory: `python benchmarks/annotations.py`. Linux only.

Writes a made-up data set into a temporary folder (by default 1.1 GB, and half a million names for few images), and
measures processes that open it. A worker's own memory is what it shares with no other process, beyond that of a worker
for a data set of few images; both collect garbage at each image, which touches every object that exists.
"""

import argparse
import gc
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.loader import build_loader
from deformable_detr.loading.transforms import ImageTransform, eval_transform
from deformable_detr.preprocessing import Preprocessing

AT_ONCE = 100_000       # objects that are written at once
IN_FOLDER = 1000        # images; all in a folder are one file with many names
NUM_CLASSES = 80
HEIGHT, WIDTH = 480, 640
FEW = 64                # images of the small data set, and of either's val


def image_entry(number: int) -> str:
    return (f'{{"license": 1, "file_name": "{number // IN_FOLDER:04d}/{number:012d}.jpg", "height": {HEIGHT}, '
            f'"width": {WIDTH}, "date_captured": "2013-11-14 17:02:52", "id": {number}}}')


def object_entries(first: int, count: int, num_images: int, generator: np.random.Generator) -> list[str]:
    """Boxes with an outline of four corners, as long as COCO's entries are on the average of large sets."""
    images, classes = (generator.integers(1, most + 1, count).tolist() for most in (num_images, NUM_CLASSES))
    boxes = np.concatenate([generator.uniform(0, 400, (count, 2)), generator.uniform(2, 80, (count, 2))], axis=1)
    return [f'{{"segmentation": [[{x}, {y}, {x + w:.2f}, {y}, {x + w:.2f}, {y + h:.2f}, {x}, {y + h:.2f}]], '
            f'"area": {w * h:.4f}, "iscrowd": 0, "image_id": {image}, "bbox": [{x}, {y}, {w}, {h}], '
            f'"category_id": {category}, "id": {number}}}'
            for number, (image, category, (x, y, w, h)) in enumerate(
                zip(images, classes, boxes.round(2).tolist(), strict=True), start=first)]


def write_split(folder: Path, split: str, num_images: int, num_objects: int) -> Path:
    generator = np.random.default_rng(0)
    file = folder / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(1, num_images + 1)
    with file.open("w") as stream:
        stream.write(f'{{"info": {{}}, "images": [{", ".join(map(image_entry, numbers))}], "annotations": [')
        for start in range(1, num_objects + 1, AT_ONCE):
            count = min(AT_ONCE, num_objects + 1 - start)
            stream.write((", " if start > 1 else "") + ", ".join(
                object_entries(start, count, num_images, generator)))
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, NUM_CLASSES + 1)]
        stream.write(f'], "categories": {json.dumps(categories)}}}')
    for start in range(0, num_images + 1, IN_FOLDER):
        images = folder / "images" / split / f"{start // IN_FOLDER:04d}"
        images.mkdir(parents=True)
        noise = generator.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
        inside = numbers[max(0, start - 1):start + IN_FOLDER - 1]
        first, *others = (images / f"{number:012d}.jpg" for number in inside)
        PIL.Image.fromarray(noise).resize((WIDTH, HEIGHT)).save(first)
        for other in others:
            other.hardlink_to(first)
    return file


@dataclass(frozen=True)
class Measured:
    """A process."""

    seconds: float
    core_seconds: float     # of processor time, which others on the machine disturb less
    peak: float             # MiB
    output: str

    def row(self) -> str:
        return f"{self.seconds:.1f} | {self.core_seconds:.1f} | {self.peak / 1024:.2f}"


def measured(command: Sequence[str]) -> Measured:
    """Run Python."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Measured(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


class Collecting(ImageTransform):
    """Collects garbage at each image."""

    def __call__(self, *arguments: Any) -> Any:
        gc.collect()
        return super().__call__(*arguments)


def open_it(folder: Path) -> None:
    """Open the data set."""
    dataset = DetectionDataset(folder, "train", eval_transform(Preprocessing()))
    print(f"{len(dataset)} images, {len(dataset.annotations.boxes)} objects")


def run_workers(folder: Path, how: str, count: int) -> None:
    """Print the mean MiB that workers, forked or spawned, have for themselves."""
    multiprocessing.set_start_method(how)
    dataset = DetectionDataset(folder, "train", Collecting(Preprocessing(256, 426)))
    loader = build_loader(dataset, 2, training=True, num_workers=count)
    for _ in islice(loader, 8 * count):
        pass
    print(np.mean([own_memory(worker.pid) for worker in multiprocessing.active_children() if worker.pid]))


def own_memory(pid: int) -> float:
    """MiB of a process that no other shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500_000)
    parser.add_argument("--objects", type=int, default=5_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder, which goes again")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        open_it(options.open)
    elif options.run:
        run_workers(Path(options.run[0]), options.run[1], options.workers)
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            compare(Path(folder), options.images, options.objects, options.workers)


def compare(folder: Path, num_images: int, num_objects: int, num_workers: int) -> None:
    large, small = folder / "large", folder / "small"
    size = write_split(large, "train", num_images, num_objects).stat().st_size
    write_split(small, "train", FEW, 10 * FEW)
    for data in (large, small):
        write_split(data, "val", FEW, 10 * FEW)
    print(f"{num_images} images, {num_objects} objects, {size / 1e9:.2f} GB\n")
    print("| a process, with all of its imports | seconds | of a core | peak, GiB |\n|---|---|---|---|")
    check = ["-m", "deformable_detr", "check", "--fast"]
    for name, command in (
            ("opens few images", [__file__, "--open", str(small)]),
            ("opens the set", [__file__, "--open", str(large)]),
            ("`ddetr check --fast --json`", [*check, "--json", str(large)]),
            ("`ddetr check --fast`, with its charts", [*check, "--sheet", str(folder / "check.png"), str(large)])):
        print(f"| {name} | {measured(command).row()} |", flush=True)
    print("\n| a worker's own memory | large, MiB | few images, MiB | added, MiB |\n|---|---|---|---|")
    for how in ("fork", "spawn"):
        own = [float(measured([__file__, "--workers", str(num_workers), "--run", str(data), how]).output)
               for data in (large, small)]
        print(f"| {how} | {own[0]:.0f} | {own[1]:.0f} | {own[0] - own[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
