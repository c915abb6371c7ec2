"""Objects and detections, listed by hand or random."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.formats.coco import read_coco
from deformable_detr.detections import Detections
from deformable_detr.evaluation import CocoEvaluator

Box = tuple[float, float, float, float]         # x0, y0, x1, y1
Thing = tuple[int, int, Box]                    # image, class, box
Found = tuple[int, int, float, Box]             # image, class, score, box

SIDE = 100


def evaluator_of(folder: Path, things: Sequence[Thing], found: Sequence[Found], *, crowds: Sequence[Thing] = (),
                 num_images: int = 2, num_classes: int = 3, size: int = SIDE) -> CocoEvaluator:
    """An evaluator with these objects and detections; images and classes are numbered from 0."""
    entries = [{"id": number, "image_id": image, "category_id": label, "iscrowd": int(number >= len(things)),
                "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
               for number, (image, label, (x0, y0, x1, y1)) in enumerate([*things, *crowds])]
    content = {"images": [{"id": image, "file_name": f"{image}.png", "width": size, "height": size}
                          for image in range(num_images)],
               "annotations": entries,
               "categories": [{"id": label, "name": f"class {label}"} for label in range(num_classes)]}
    (folder / "val.json").write_text(json.dumps(content))
    evaluator = CocoEvaluator(read_coco(folder / "val.json", Findings(strict=True)))
    for image in range(num_images):
        rows = sorted((row for row in found if row[0] == image), key=lambda row: -row[2])
        labels = [label for _, label, _, _ in rows]
        evaluator.add(image, Detections(
            np.array([box for *_, box in rows], np.float64).reshape(-1, 4),
            np.array([score for _, _, score, _ in rows], np.float32), np.array(labels, np.int64),
            [str(label) for label in labels], (size, size)))
    return evaluator


def random_evaluator(folder: Path, seed: int) -> CocoEvaluator:
    """Crowded images: detections are near objects, some of another class, and many scores are equal."""
    random = np.random.default_rng(seed)

    def box(around: Box | None = None) -> Box:
        if around is not None and random.random() < 0.8:
            x0, y0, x1, y1 = np.array(around) + random.integers(-9, 10, 4)
        else:
            x0, y0 = random.integers(0, 60, 2)
            x1, y1 = np.add((x0, y0), random.integers(10, 40, 2))
        return float(x0), float(y0), float(max(x1, x0 + 2)), float(max(y1, y0 + 2))

    things = [(int(random.integers(5)), int(random.integers(3)), box()) for _ in range(25)]
    crowds = [(int(random.integers(5)), int(random.integers(3)), box()) for _ in range(3)]
    found = []
    for _ in range(120):
        image, label, around = things[random.integers(len(things))]
        label = label if random.random() < 0.7 else int(random.integers(4))
        found.append((image, label, float(random.integers(1, 20)) / 20, box(around)))
    return evaluator_of(folder, things, found, crowds=crowds, num_images=6, num_classes=4)
