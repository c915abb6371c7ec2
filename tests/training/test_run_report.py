"""The report at the end of a training run."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from deformable_detr import Detections, Detector
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.detections import Postprocessing
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.report import Subject
from deformable_detr.training import Recipe, run_report
from deformable_detr.training.loop import Training
from deformable_detr.training.run_folder import RunFolder
from deformable_detr.weights import ModelInfo, load, save
from helpers.models import small_model

PREPROCESSING = Preprocessing(size=40, max_size=60)
INFO = ModelInfo(("a", "b", "c"), (1, 2, 3), PREPROCESSING)


def data_with_objects(folder: Path, boxes: list[list[int]]) -> Annotations:
    """One image with objects of class a."""
    (folder / "images").mkdir()
    PIL.Image.new("RGB", (60, 40)).save(folder / "images" / "a.png")
    (folder / "val.json").write_text(json.dumps({
        "images": [{"id": 0, "file_name": "a.png", "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "b"}, {"id": 2, "name": "a"}],
        "annotations": [{"id": number, "image_id": 0, "category_id": 2, "bbox": box}
                        for number, box in enumerate(boxes, start=1)]}))
    return DetectionDataset(folder, "val", eval_transform(PREPROCESSING)).annotations


def test_classes_of_weights_and_validation_are_matched_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_with_objects(tmp_path, [[5, 5, 20, 20]])
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    save(folder.best, small_model(), INFO)
    training = object.__new__(Training)
    training.folder, training.recipe = folder, Recipe(batch_size=1, num_workers=0)
    training.validation_data = DetectionDataset(tmp_path, "val", eval_transform(PREPROCESSING))
    training.accelerator = SimpleNamespace(device="cpu")  # type: ignore[assignment]
    written: list[Subject] = []
    monkeypatch.setattr(run_report, "write_report", lambda page, subject, *numbers: written.append(subject))
    shown: list[Any] = []

    def progress(items: Any, total: int, title: str, status: Any = str) -> Any:
        shown.append((total, title))
        return items

    run_report.report_run(training, progress)
    assert written[0].evaluator.match.classes == (1, 0, None)
    assert shown == [(1, "report")]


def test_the_best_threshold_is_kept_with_the_weights(tmp_path: Path) -> None:
    """Of scores 0.3 on objects and 0.2 on none, thresholds between are best; the middle one is taken."""
    annotations = data_with_objects(tmp_path, [[5, 5, 20, 20], [30, 10, 20, 20]])
    path = tmp_path / "best.safetensors"
    save(path, small_model(), INFO)
    before, detector = load(path)[0].state_dict(), Detector(path, device="cpu")
    for scores, kept in (([0.305, 0.3, 0.2], 0.25), ([0.04, 0.03, 0.9], 0.02)):
        evaluator = CocoEvaluator(annotations, INFO.names)
        boxes = np.array([[5, 5, 25, 25], [30, 10, 50, 30], [0, 0, 3, 3]], np.float32)
        order = np.argsort(scores)[::-1]
        evaluator.add(0, Detections(boxes[order], np.array(scores, np.float32)[order], np.zeros(3, np.int64),
                                    ["a"] * 3, (40, 60)))
        run_report._keep_threshold(path, detector, evaluator)
        model, info = load(path)
        assert info == replace(INFO, postprocessing=Postprocessing(info.postprocessing.threshold))
        assert info.postprocessing.threshold == pytest.approx(kept, abs=0.015)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_where_nothing_is_right_the_threshold_stays(tmp_path: Path) -> None:
    annotations = data_with_objects(tmp_path, [[5, 5, 20, 20]])
    path = tmp_path / "best.safetensors"
    save(path, small_model(), INFO)
    before, detector = path.read_bytes(), Detector(path, device="cpu")
    evaluator = CocoEvaluator(annotations, INFO.names)
    evaluator.add(0, Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), [],
                                (40, 60)))
    run_report._keep_threshold(path, detector, evaluator)
    assert path.read_bytes() == before
