"""The report at the end of a training run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import PIL.Image
import pytest

from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.report import Subject
from deformable_detr.training import Recipe, run_report
from deformable_detr.training.loop import Training
from deformable_detr.training.run_folder import RunFolder
from deformable_detr.weights import ModelInfo, save
from helpers.models import small_model

PREPROCESSING = Preprocessing(size=40, max_size=60)


def test_classes_of_weights_and_validation_are_matched_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    PIL.Image.new("RGB", (60, 40)).save(tmp_path / "images" / "a.png")
    (tmp_path / "val.json").write_text(json.dumps({
        "images": [{"id": 0, "file_name": "a.png", "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "b"}, {"id": 2, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [5, 5, 20, 20]}]}))
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    save(folder.best, small_model(), ModelInfo(("a", "b", "c"), (1, 2, 3), PREPROCESSING))
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
