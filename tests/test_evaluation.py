"""COCO metrics: compared with pycocotools and with values published with the data."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.formats.coco import read_coco
from deformable_detr.detections import Detections
from deformable_detr.evaluation import CocoEvaluator, CocoMetrics, CountingLimits, detect_all, match_names
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.loader import build_loader
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import ImageBatch, Predictions

FIXTURES = Path(__file__).parent / "fixtures"
PAIRS = FIXTURES / "eval-pairs"
NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
         "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"]


def detections(boxes: Any, scores: Any, labels: Any) -> Detections:
    # float64, as some boxes of the pairs meet an IoU threshold exactly and rounding would decide
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return Detections(boxes, np.asarray(scores, np.float32), np.asarray(labels, np.int64),
                      [str(label) for label in labels], (480, 640))


def add_results(evaluator: CocoEvaluator, results: list[dict[str, Any]]) -> None:
    """Add COCO's list of results, x, y, width, height, as the detections of each image."""
    label_of = {identity: label for label, identity in enumerate(evaluator.annotations.category_ids)}
    for image_id in {result["image_id"] for result in results}:
        of_image = [result for result in results if result["image_id"] == image_id]
        corners = np.array([result["bbox"] for result in of_image])
        corners[:, 2:] += corners[:, :2]
        evaluator.add(image_id, detections(corners, [result["score"] for result in of_image],
                                           [label_of[result["category_id"]] for result in of_image]))


def by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = {"info": {}, **truth}
        ground_truth.createIndex()
        counter = COCOeval(ground_truth, ground_truth.loadRes(results), "bbox")
        counter.evaluate()
        counter.accumulate()
        counter.summarize()
    return dict(zip(NAMES, counter.stats.tolist(), strict=True))


def numbers(metrics: CocoMetrics) -> dict[str, float]:
    """As pycocotools returns them: -1 if there is nothing to find."""
    return {name: -1 if metrics.to_dict()[name] is None else metrics.to_dict()[name] for name in NAMES}


@pytest.mark.parametrize("pair", [
    ("instances_val2014_100.json", "instances_val2014_fakebbox100_results.json"),
    ("gt_ignore_test.json", "dt_ignore_test.json"),     # crowds, and ids written as text
])
def test_agrees_with_pycocotools(pair: tuple[str, str]) -> None:
    truth, results = (json.loads((PAIRS / name).read_text()) for name in pair)
    evaluator = CocoEvaluator(read_coco(PAIRS / pair[0], Findings(strict=True)))
    add_results(evaluator, results)
    for entry in truth["images"]:
        entry["id"] = int(entry["id"])
    for entry in truth["annotations"]:
        entry["image_id"] = int(entry["image_id"])
    expected = by_pycocotools(truth, results)
    assert expected["AP"] > 0.1
    assert numbers(evaluator.summarize()) == pytest.approx(expected, abs=1e-6)


def test_published_numbers() -> None:
    evaluator = CocoEvaluator(read_coco(PAIRS / "instances_val2014_100.json", Findings(strict=True)))
    add_results(evaluator, json.loads((PAIRS / "instances_val2014_fakebbox100_results.json").read_text()))
    expected = next(value for value in json.loads((PAIRS / "EXPECTED.json").read_text()).values()
                    if isinstance(value, list))
    metrics = evaluator.summarize()
    assert list(numbers(metrics).values()) == pytest.approx(expected, abs=1e-5)
    seen = [value for value in metrics.to_dict()["per_class"].values() if value is not None]
    assert np.mean(seen) == pytest.approx(metrics.AP)


@pytest.fixture
def truth() -> Annotations:
    return read_coco(FIXTURES / "bccd" / "annotations" / "val.json", Findings(strict=True))


def perfect(annotations: Annotations, image: int, labels_to: dict[int, int] | None = None) -> Detections:
    rows = annotations.image_index == image
    corners = annotations.boxes[rows].copy()
    corners[:, 2:] += corners[:, :2]
    labels = [(labels_to or {}).get(label, label) for label in annotations.labels[rows].tolist()]
    return detections(corners, np.full(len(labels), 0.5), labels)


def test_perfect_detections(truth: Annotations, capfd: pytest.CaptureFixture) -> None:
    evaluator = CocoEvaluator(truth)
    for index, image in enumerate(truth.images):
        evaluator.add(image.id, perfect(truth, index))
    metrics = evaluator.summarize()
    assert pytest.approx(1) == metrics.AP
    assert metrics.per_class == pytest.approx({"RBC": 1, "WBC": 1, "Platelets": 1})
    assert capfd.readouterr() == ("", "")


def test_a_second_call_for_an_image_replaces_the_first(truth: Annotations) -> None:
    evaluator = CocoEvaluator(truth)
    for index, image in enumerate(truth.images):
        evaluator.add(image.id, detections([[0, 0, 9, 9]], [0.9], [0]))
        evaluator.add(image.id, perfect(truth, index))
    assert pytest.approx(1) == evaluator.summarize().AP


def test_images_without_a_call_count_as_missed(truth: Annotations) -> None:
    evaluator = CocoEvaluator(truth)
    for index, image in enumerate(truth.images[:4]):
        evaluator.add(image.id, perfect(truth, index))
    assert 0.2 < evaluator.summarize().AR100 < 0.8


def test_no_detections_are_zeros(truth: Annotations) -> None:
    evaluator = CocoEvaluator(truth)
    evaluator.add(truth.images[0].id, detections([], [], []))
    metrics = evaluator.summarize()
    assert {metrics.AP, metrics.AP50, metrics.AR100, *metrics.per_class.values()} == {0}


def test_nothing_to_find_is_null_in_json(truth: Annotations) -> None:
    nothing = {"ids": np.zeros(0, np.int64), "image_index": np.zeros(0, np.int64), "areas": np.zeros(0),
               "labels": np.zeros(0, np.int64), "boxes": np.zeros((0, 4)), "crowd": np.zeros(0, bool)}
    evaluator = CocoEvaluator(replace(truth, **nothing))
    evaluator.add(truth.images[0].id, detections([[0, 0, 9, 9]], [0.9], [0]))
    written = json.loads(json.dumps(evaluator.summarize().to_dict(), allow_nan=False))
    assert list(written) == [*NAMES, "per_class"]
    assert written["AP"] is None
    assert written["per_class"] == {"RBC": None, "WBC": None, "Platelets": None}


@pytest.mark.parametrize("image_id", [0, 2**63 - 1])
def test_ids_of_any_size_count(tmp_path: Path, image_id: int) -> None:
    content = {"images": [{"id": image_id, "file_name": "a.png", "width": 100, "height": 100}],
               "categories": [{"id": 0, "name": "cat"}],
               "annotations": [{"id": 0, "image_id": image_id, "category_id": 0, "bbox": [10, 10, 50, 50]}]}
    (tmp_path / "val.json").write_text(json.dumps(content))
    evaluator = CocoEvaluator(read_coco(tmp_path / "val.json", Findings(strict=True)))
    evaluator.add(image_id, detections([[10, 10, 60, 60]], [0.9], [0]))
    assert pytest.approx(1) == evaluator.summarize().AP


def test_classes_are_matched_by_name(truth: Annotations) -> None:
    evaluator = CocoEvaluator(truth, ["background", "Platelets", "RBC"])
    assert evaluator.match.classes == (None, 2, 0)
    assert evaluator.match.only_in_model == ("background",)
    assert evaluator.match.only_in_data == ("WBC",)
    for index, image in enumerate(truth.images):
        evaluator.add(image.id, perfect(truth, index, {0: 2, 1: 0, 2: 1}))
    assert evaluator.summarize().per_class == pytest.approx({"RBC": 1, "WBC": 0, "Platelets": 1})


def test_no_common_name() -> None:
    with pytest.raises(ValueError, match="to know a class of the data set, got 'a', 'b' in the model"):
        match_names(["a", "b"], ["c"])


def test_unknown_images_and_classes(truth: Annotations) -> None:
    evaluator = CocoEvaluator(truth)
    with pytest.raises(ValueError, match=r"image_id: expected the id of an image in .*, got 999999"):
        evaluator.add(999999, detections([], [], []))
    with pytest.raises(ValueError, match=r"detections: expected labels in 0\.\.2, got 3\.\.3"):
        evaluator.add(truth.images[0].id, detections([[0, 0, 1, 1]], [0.5], [3]))


def test_table_shows_every_number(truth: Annotations) -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=80)
    console.print(CocoEvaluator(truth).summarize().table())
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(name in shown for name in [*NAMES, "AP of RBC", "AP of Platelets"])
    assert "0.000" in shown


def test_what_no_model_can_find_is_counted(tmp_path: Path) -> None:
    def boxes(image_id: int, *rows: list[float], crowd: int = 0) -> list[dict[str, Any]]:
        return [{"image_id": image_id, "category_id": 1, "bbox": row, "iscrowd": crowd} for row in rows]

    entries = [*boxes(1, *[[3.0 * number, 5, 2, 2] for number in range(150)]),
               *boxes(2, *[[3.0 * number, 5, 2, 2] for number in range(101)]),
               *boxes(3, *[[3.0 * number, 5, 2, 2] for number in range(100)], [500, 1, 9, 9]),
               *boxes(3, [0, 0, 9, 9], [0, 0, 0, 0], crowd=1),
               *boxes(4, [1, 1, 0, 5], [9, 9, -3, 5], [900, 1, 5, 5], [1, 1, 5, 5])]
    (tmp_path / "val.json").write_text(json.dumps({
        "images": [{"id": number, "file_name": f"{number}.png", "width": 500, "height": 50} for number in range(1, 5)],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(entries)]}))
    limits = CocoEvaluator(read_coco(tmp_path / "val.json", Findings(strict=True))).limits()
    assert limits == CountingLimits(max_detections=100, num_images_beyond=3, num_objects_beyond=50 + 1 + 1,
                                    num_unfindable=4)


def test_boxes_without_area_count_as_missed_as_with_pycocotools(tmp_path: Path) -> None:
    """Perfect detections of all that is trained on reach an AP of a half."""
    boxes = [[10, 10, 20, 20], [5, 5, 0, 20]]
    content = {"images": [{"id": number, "file_name": f"{number}.png", "width": 99, "height": 99} for number in (1, 2)],
               "categories": [{"id": 1, "name": "cell"}],
               "annotations": [{"id": 2 * image + row, "image_id": image, "category_id": 1, "bbox": box, "iscrowd": 0,
                                "area": 400} for image in (1, 2) for row, box in enumerate(boxes)]}
    (tmp_path / "val.json").write_text(json.dumps(content))
    evaluator = CocoEvaluator(read_coco(tmp_path / "val.json", Findings(strict=True)))
    results = [{"image_id": image, "category_id": 1, "bbox": boxes[0], "score": 0.9} for image in (1, 2)]
    add_results(evaluator, results)
    assert evaluator.limits().num_unfindable == 2
    assert pytest.approx(by_pycocotools(content, results)["AP"], abs=1e-6) == evaluator.summarize().AP
    assert pytest.approx(0.5, abs=0.01) == evaluator.summarize().AP


def test_predictions_that_are_not_finite_are_an_error() -> None:
    dataset = DetectionDataset(FIXTURES / "bccd", "val", eval_transform(Preprocessing(size=120, max_size=160)))

    def broken(batch: ImageBatch) -> Predictions:
        count = len(batch.sizes)
        return Predictions(torch.full((1, count, 4, 3), torch.nan), torch.rand(1, count, 4, 4), None)

    with pytest.raises(ValueError, match="predictions: expected finite"):
        detect_all(broken, build_loader(dataset, 3, training=False), dataset.annotations)


class Oracle:
    """A model that knows the answers: it recognises images by their first pixels."""

    def __init__(self, dataset: DetectionDataset) -> None:
        samples = map(dataset.__getitem__, range(len(dataset)))
        self.answers = {self.key(sample.image): sample.target for sample in samples}

    @staticmethod
    def key(image: torch.Tensor) -> tuple[float, ...]:
        return tuple(image[:, :4, :4].flatten().tolist())

    def __call__(self, batch: ImageBatch) -> Predictions:
        assert torch.is_inference_mode_enabled()
        logits = torch.full((2, len(batch.sizes), 40, 3), -9.0)
        boxes = torch.rand(2, len(batch.sizes), 40, 4)
        for row, image in enumerate(batch.images):
            target = self.answers[self.key(image)]
            logits[-1, row, range(len(target.labels)), target.labels] = 9
            boxes[-1, row, :len(target.labels)] = target.boxes
        return Predictions(logits, boxes, None)


def test_a_model_that_knows_the_answers_finds_everything() -> None:
    dataset = DetectionDataset(FIXTURES / "bccd", "val", eval_transform(Preprocessing(size=120, max_size=160)))
    metrics = detect_all(Oracle(dataset), build_loader(dataset, 3, training=False), dataset.annotations).summarize()
    assert pytest.approx(1) == metrics.AP50
    assert metrics.AP > 0.95
