"""How long a large COCO file takes to open, and how much memory: `python benchmarks/annotations.py`. Linux only.

Writes a made-up data set into a temporary folder (1.1 GB and half a million names of few pictures, by default), and
looks at processes that open it. A worker's own memory is what it shares with no other process, above that of a worker
of a data set of few pictures; both collect garbage at each picture, which touches every object that there is.
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
from itertools import islice
from pathlib import Path

import numpy as np
import PIL.Image

MIB = 2**20
AT_ONCE = 100_000       # objects that are written at once
IN_FOLDER = 1000        # pictures; all in a folder are one file with many names
NUM_CLASSES = 80
HEIGHT, WIDTH = 480, 640
FEW = 64                # pictures of the small data set, and of either's val


def picture_entry(number: int) -> str:
    return (f'{{"license": 1, "file_name": "{number // IN_FOLDER:04d}/{number:012d}.jpg", "height": {HEIGHT}, '
            f'"width": {WIDTH}, "date_captured": "2013-11-14 17:02:52", "id": {number}}}')


def object_entries(first: int, count: int, num_pictures: int, generator: np.random.Generator) -> list[str]:
    """Boxes with an outline of four corners, as long as COCO's entries are on the average of large sets."""
    pictures, classes = (generator.integers(1, most + 1, count).tolist() for most in (num_pictures, NUM_CLASSES))
    boxes = np.concatenate([generator.uniform(0, 400, (count, 2)), generator.uniform(2, 80, (count, 2))], axis=1)
    return [f'{{"segmentation": [[{x}, {y}, {x + w:.2f}, {y}, {x + w:.2f}, {y + h:.2f}, {x}, {y + h:.2f}]], '
            f'"area": {w * h:.4f}, "iscrowd": 0, "image_id": {picture}, "bbox": [{x}, {y}, {w}, {h}], '
            f'"category_id": {category}, "id": {number}}}'
            for number, (picture, category, (x, y, w, h)) in enumerate(
                zip(pictures, classes, boxes.round(2).tolist(), strict=True), start=first)]


def write_split(folder: Path, split: str, num_pictures: int, num_objects: int) -> Path:
    generator = np.random.default_rng(0)
    file = folder / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(1, num_pictures + 1)
    with file.open("w") as stream:
        stream.write(f'{{"info": {{}}, "images": [{", ".join(map(picture_entry, numbers))}], "annotations": [')
        for start in range(1, num_objects + 1, AT_ONCE):
            count = min(AT_ONCE, num_objects + 1 - start)
            stream.write((", " if start > 1 else "") + ", ".join(
                object_entries(start, count, num_pictures, generator)))
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, NUM_CLASSES + 1)]
        stream.write(f'], "categories": {json.dumps(categories)}}}')
    for start in range(0, num_pictures + 1, IN_FOLDER):
        pictures = folder / "images" / split / f"{start // IN_FOLDER:04d}"
        pictures.mkdir(parents=True)
        noise = generator.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
        first, *others = (pictures / f"{number:012d}.jpg" for number in numbers[max(0, start - 1):start + IN_FOLDER - 1])
        PIL.Image.fromarray(noise).resize((WIDTH, HEIGHT)).save(first)
        for other in others:
            other.hardlink_to(first)
    return file


def measured(command: Sequence[str]) -> tuple[float, float, str]:
    """Seconds and peak MiB of a process, and what it printed."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / MIB, output


def open_it(folder: Path) -> None:
    """Prints the seconds that a data set takes to open, once the libraries are there."""
    from deformable_detr.data import DetectionDataset, eval_transform
    from deformable_detr.structures import Preprocessing

    start = time.perf_counter()
    dataset = DetectionDataset(folder, "train", eval_transform(Preprocessing()))
    print(time.perf_counter() - start, len(dataset), len(dataset.annotations.boxes))


def run_workers(folder: Path, how: str, count: int) -> None:
    """Prints the mean MiB that a worker has for itself, and shares fairly."""
    from deformable_detr.data import DetectionDataset, build_loader, train_transform
    from deformable_detr.data.dataset import Sample
    from deformable_detr.structures import Preprocessing

    global Collecting       # where a worker that is not forked looks for it

    class Collecting(DetectionDataset):
        def __getitem__(self, key: object) -> Sample:
            gc.collect()
            return super().__getitem__(key)

    multiprocessing.set_start_method(how)
    dataset = DetectionDataset(folder, "train", train_transform("published", Preprocessing(256, 426)))
    dataset.__class__ = Collecting if how == "fork" else DetectionDataset
    loader = iter(build_loader(dataset, 2, training=True, num_workers=count))
    list(islice(loader, 8 * count))
    print(*np.mean([own_memory(worker.pid) for worker in loader._workers], axis=0))


def own_memory(pid: int) -> tuple[float, float]:
    """MiB: pages of this process alone, and with its share of the others."""
    sizes = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    kib = {name: int(size.split()[0]) for name, size in sizes.items()}
    return (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024, kib["Pss"] / 1024
