"""What tiles gain on large pictures: `python benchmarks/tiles.py DATA.json OUT [--tile-size 768]`.

DATA.json is a COCO file beside a folder `images`. Its photographs are laid side by side at their own size, six to a
picture, into OUT. Then the packaged detector looks for the objects, which are small in these pictures, without tiles
and with them, by turns; and, where `supervision` is installed, with its slicer over windows of the first size, which
looks at no whole picture; all keep the best 100. Printed are the metrics and the seconds an image.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from deformable_detr import Detections, Detector
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.detect.tiles import OVERLAP
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.loading.dataset import DetectionDataset

COLUMNS, ROWS = 3, 2
TOP_K = 100


def compose(source: Path, out: Path) -> None:
    """Write the large pictures with the objects of their photographs."""
    content = json.loads(source.read_text())
    (out / "images").mkdir(parents=True)
    width, height = (max(image[side] for image in content["images"]) for side in ("width", "height"))
    images: list[dict[str, Any]] = []
    places: dict[int, tuple[int, int, int]] = {}     # of each photograph: its picture, and where it lies in it
    for start in range(0, len(content["images"]), COLUMNS * ROWS):
        picture = PIL.Image.new("RGB", (COLUMNS * width, ROWS * height))
        for index, photograph in enumerate(content["images"][start:][:COLUMNS * ROWS]):
            left, top = width * (index % COLUMNS), height * (index // COLUMNS)
            with PIL.Image.open(source.parent / "images" / photograph["file_name"]) as file:
                picture.paste(file, (left, top))
            places[photograph["id"]] = len(images), left, top
        images.append({"id": len(images), "file_name": f"{start}.jpg", "width": picture.width,
                       "height": picture.height})
        picture.save(out / "images" / f"{start}.jpg", quality=95)
    objects = []
    for entry in content["annotations"]:
        picture, left, top = places[entry["image_id"]]
        x, y, *size = entry["bbox"]
        objects.append({**entry, "image_id": picture, "bbox": [x + left, y + top, *size]})
    (out / "val.json").write_text(json.dumps({**content, "images": images, "annotations": objects}))


def with_supervision(size: int) -> dict[str, Callable[[np.ndarray], Detections]]:
    try:
        import supervision
    except ImportError:
        return {}
    detector = Detector("demo")
    slicer = supervision.InferenceSlicer(lambda pixels: detector(pixels, 0, TOP_K).to_supervision(), slice_wh=size,
                                         overlap_wh=round(size * OVERLAP))

    def look(pixels: np.ndarray) -> Detections:
        found = slicer(pixels)
        best = found[np.argsort(-found.confidence)[:TOP_K]]
        return Detections.from_supervision(best, (pixels.shape[0], pixels.shape[1]), detector.names)

    return {f"{size}, supervision's slicer": look}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tile-size", type=int, nargs="+", default=[480, 768])
    options = parser.parse_args()
    if not options.out.exists():
        compose(options.data, options.out)
    dataset = DetectionDataset(DataFolder(options.out), "val")
    detectors = {"without": Detector("demo"), **{f"{size}": Detector("demo", tile=size) for size in options.tile_size}}
    cases = {name: lambda pixels, detector=detector: detector(pixels, 0, TOP_K) for name, detector in detectors.items()}
    cases |= with_supervision(options.tile_size[0])
    evaluators = {name: CocoEvaluator(dataset.annotations, detectors["without"].names) for name in cases}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for index, image in enumerate(dataset.annotations.images):
        for name, look in cases.items():
            pixels, start = dataset.image(index), time.perf_counter()
            evaluators[name].add(image.id, look(pixels))
            seconds[name].append(time.perf_counter() - start)
    width, height = image.width, image.height
    print(f"{len(dataset.annotations.images)} pictures of {width} x {height}, torch {torch.__version__}, "
          f"{torch.get_num_threads()} threads\n\n| tiles | AP | AP50 | AP_small | seconds an image |\n"
          "|---|---|---|---|---|")
    for name, evaluator in evaluators.items():
        metrics = evaluator.summarize()
        print(f"| {name} | {metrics.AP:.3f} | {metrics.AP50:.3f} | {metrics.AP_small:.3f} | "
              f"{statistics.median(seconds[name]):.2f} |", flush=True)


if __name__ == "__main__":
    main()
