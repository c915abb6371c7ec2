"""The image of detections next to the annotations."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from deformable_detr.detect.detector import Detector
from deformable_detr.detections import Detections
from deformable_detr.drawing import colour_of
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.training import validation
from deformable_detr.weights import ModelInfo
from helpers.models import small_model

PREPROCESSING = Preprocessing(size=40, max_size=60)


def drawn(folder: Path, sizes: list[tuple[int, int]], names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
          ) -> np.ndarray:
    """Images with a cat each, which a detector with these names finds."""
    (folder / "images").mkdir()
    for number, size in enumerate(sizes):
        PIL.Image.new("RGB", size, "black").save(folder / "images" / f"{number}.png")
    (folder / "val.json").write_text(json.dumps({
        "images": [{"id": number, "file_name": f"{number}.png", "width": width, "height": height}
                   for number, (width, height) in enumerate(sizes)],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 2, "bbox": [10, 10, 20, 20]}]}))
    data = DetectionDataset(folder, "val", eval_transform(PREPROCESSING))
    info = ModelInfo(names, tuple(range(len(names))), PREPROCESSING)
    detector = Detector.from_model(small_model(num_classes=len(names)), info)
    label = names.index("cat")

    def detect(self: Detector, image: np.ndarray, threshold: float) -> Detections:
        found = Detections(np.array([[10, 10, 30, 30]], np.float32), np.array([0.9], np.float32), np.array([label]),
                           ["cat"], (60, 60))
        return found if image.shape[0] == sizes[0][1] else replace(
            found, boxes=found.boxes[:0], scores=found.scores[:0], labels=found.labels[:0], names=[])

    monkeypatch.setattr(Detector, "__call__", detect)
    return np.asarray(PIL.Image.open(io.BytesIO(validation.draw_validation(detector, data))))


@pytest.mark.parametrize("names", [("dog", "cat"), ("cat", "dog"), ("third", "cat")])
def test_a_class_has_one_colour_on_both_sides(tmp_path: Path, names: tuple[str, ...],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    image = drawn(tmp_path, [(60, 60)], names, monkeypatch)
    halves = np.split(image, [image.shape[1] // 2], axis=1)
    for half in halves:
        assert (half == colour_of(1)).all(axis=2).sum() > 50


def test_each_side_has_a_heading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = drawn(tmp_path, [(60, 60), (90, 30)], ("dog", "cat"), monkeypatch)
    heading = image[:validation.HEADING_SIZE + validation.GAP]
    left, right = (half for half in np.split(heading, [image.shape[1] // 2], axis=1))
    dark = [int((half.max(axis=2) < 100).sum()) for half in (left, right)]
    assert dark[0] > 50
    assert dark[1] > 3 * dark[0]            # a longer text
    assert (heading[:, -2:] == 255).all()   # and all of it
