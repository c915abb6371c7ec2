import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deformable_detr import Detector, ImageBatch, cli
from deformable_detr.detect.batches import THREAD_NAME
from deformable_detr.detect.runtimes import TorchRuntime
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import Predictions
from deformable_detr.weights import ModelInfo, save
from helpers.models import small_model

Captured = pytest.CaptureFixture[str]
BLOOD_CELLS = Path(__file__).parents[1] / "fixtures" / "bccd"
TWELVE = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100", "AR_small",
          "AR_medium", "AR_large"]


def save_weights(path: Path, *names: str) -> str:
    info = ModelInfo(names, tuple(range(len(names))), Preprocessing(size=64, max_size=96))
    save(path, small_model(num_classes=len(names)), info)
    return str(path)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return save_weights(tmp_path / "small.safetensors", "Platelets", "RBC", "WBC")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BLOOD_CELLS, tmp_path / "data"))


def test_json_is_one_object_of_twelve_numbers_and_the_classes(weights: str, capsys: Captured) -> None:
    assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights, "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert list(numbers) == [*TWELVE, "per_class"]
    assert set(numbers["per_class"]) == {"Platelets", "RBC", "WBC"}
    assert 0 <= numbers["AP"] <= numbers["AP50"] <= 1


def test_a_table_for_people(weights: str, capsys: Captured) -> None:
    assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in [*TWELVE, "AP of Platelets", "AP of RBC", "AP of WBC"])


def test_classes_meet_by_name(tmp_path: Path, capsys: Captured) -> None:
    weights = save_weights(tmp_path / "other.safetensors", "WBC", "parasite")
    assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights, "--json"]) == 0
    output, error = capsys.readouterr()
    assert json.loads(output)["per_class"]["RBC"] == 0
    assert "not counted: parasite" in error
    assert "count as missed: RBC, Platelets" in error


def test_no_class_in_common(tmp_path: Path, capsys: Captured) -> None:
    weights = save_weights(tmp_path / "other.safetensors", "cat")
    assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights]) == 2
    assert "expected the model to know a class of the data set" in capsys.readouterr().err


def test_a_data_set_that_cannot_be_read(weights: str, data: Path, capsys: Captured) -> None:
    assert cli.main(["eval", str(data), "--weights", weights, "--split", "test"]) == 2
    assert f"{data}: no split 'test'; the COCO data set there has train, val" in capsys.readouterr().err
    shutil.rmtree(data / "annotations")
    assert cli.main(["eval", str(data), "--weights", weights]) == 2
    assert f"{data}: no data set found" in capsys.readouterr().err
    assert cli.main(["eval", str(data), "--weights", "none.safetensors"]) == 2
    assert "none.safetensors" in capsys.readouterr().err


def test_images_drawn_for_val_are_stated(weights: str, data: Path, capsys: Captured) -> None:
    (data / "annotations" / "val.json").unlink()
    assert cli.main(["eval", str(data), "--weights", weights, "--json"]) == 0
    output, error = capsys.readouterr()
    assert set(json.loads(output)["per_class"]) == {"Platelets", "RBC", "WBC"}
    assert "no split val: of 8 images " in error


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_an_image_that_cannot_be_read(weights: str, data: Path, damage: str, capsys: Captured) -> None:
    image = data / "images" / "BloodImage_00160.jpg"
    content = image.read_bytes()
    image.write_bytes({"truncated": content[:len(content) // 2], "text": b"no image", "empty": b""}[damage])
    assert cli.main(["eval", str(data), "--weights", weights, "--json"]) == 1
    output, error = capsys.readouterr()
    assert output == ""
    assert "BloodImage_00160.jpg" in error
    assert "Traceback" not in error
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


def test_an_absent_image_is_reported_before_any_is_read(weights: str, data: Path, capsys: Captured) -> None:
    (data / "images" / "BloodImage_00160.jpg").unlink()
    assert cli.main(["eval", str(data), "--weights", weights]) == 2
    assert "BloodImage_00160.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["valid", "validation", "VAL"])
def test_a_split_by_its_other_names(weights: str, data: Path, split: str, capsys: Captured) -> None:
    assert cli.main(["eval", str(data), "--weights", weights, "--json"]) == 0
    expected = capsys.readouterr().out
    (data / "annotations" / "val.json").rename(data / "annotations" / "valid.json")
    assert cli.main(["eval", str(data), "--weights", weights, "--split", split, "--json"]) == 0
    assert capsys.readouterr().out == expected


def test_a_table_in_a_pipe_is_not_cut(tmp_path: Path, data: Path, capsys: Captured,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a class with a very long name, " * 5
    file = data / "annotations" / "val.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = name
    file.write_text(json.dumps(content))
    monkeypatch.setenv("COLUMNS", "40")
    assert cli.main(["eval", str(data), "--weights", save_weights(tmp_path / "long.safetensors", name)]) == 0
    assert f"AP of {name}" in capsys.readouterr().out


def test_what_counts_as_missed_whatever_is_found_is_reported(weights: str, data: Path, capsys: Captured) -> None:
    file = data / "annotations" / "val.json"
    content = json.loads(file.read_text())
    first = content["annotations"][0]
    content["annotations"] += [{**first, "id": 10_000 + number} for number in range(150)]
    content["annotations"] += [{**first, "id": 20_000 + number, "bbox": [5, 5, 0, 9]} for number in range(2)]
    file.write_text(json.dumps(content))
    assert cli.main(["eval", str(data), "--weights", weights, "--json"]) == 0
    output, error = capsys.readouterr()
    assert 0 <= json.loads(output)["AP"] <= 1
    assert "COCO counts the 100 best detections of an image; images with more objects: 1, objects beyond" in error
    assert "objects without area inside their image: 2; training leaves them out" in error


def test_predictions_that_are_not_finite(weights: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TorchRuntime.run

    def broken(runtime: TorchRuntime, batch: ImageBatch) -> Predictions:
        predictions = run(runtime, batch)
        return replace(predictions, boxes=predictions.boxes * torch.nan)

    monkeypatch.setattr(TorchRuntime, "run", broken)
    assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights, "--json"]) == 1
    output, error = capsys.readouterr()
    assert output == ""
    assert "ddetr: predictions: expected finite scores and boxes" in error


def write_what_is_found(detector: Detector, folder: Path) -> None:
    """A data set of images of three sizes, whose objects are what the detector finds, the first ones a little off."""
    images, objects = [], []
    for index in range(7):
        height, width = [(100, 70), (64, 64), (31, 90)][index % 3]
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "width": width, "height": height})
        for found in detector(pixels, threshold=0, top_k=5):
            x0, y0, x1, y1 = map(float, found.box)
            objects.append({"id": len(objects) + 1, "image_id": index, "category_id": found.label,
                            "bbox": [x0, y0, (x1 - x0) * (0.8 if index < 2 else 1), y1 - y0]})
    categories = [{"id": label, "name": name} for label, name in enumerate(detector.names)]
    content = {"images": images, "categories": categories, "annotations": objects}
    (folder / "val.json").write_text(json.dumps(content))


def test_neither_batches_nor_neighbours_change_the_metrics(weights: str, tmp_path: Path, capsys: Captured) -> None:
    """They are those of what the detector gives for each image alone."""
    detector = Detector(weights, "cpu")
    data = tmp_path / "found"
    data.mkdir()
    write_what_is_found(detector, data)
    found = []
    for batch_size in ("1", "3", "auto"):
        call = ["eval", str(data), "--weights", weights, "--device", "cpu", "--batch-size", batch_size, "--json"]
        assert cli.main(call) == 0
        found.append(json.loads(capsys.readouterr().out))
    dataset = DetectionDataset(data, "val")
    evaluator = CocoEvaluator(dataset.annotations, detector.names)
    for index, image in enumerate(dataset.annotations.images):
        evaluator.add(image.id, detector(dataset.image(index), threshold=0))
    expected = evaluator.summarize().to_dict()
    assert 0.1 < expected["AP"] < 1
    for metrics in found:
        assert metrics["per_class"] == pytest.approx(expected["per_class"], abs=1e-4)
        assert metrics["AP_small"] == pytest.approx(expected["AP_small"], abs=1e-4)
        assert metrics["AR100"] == pytest.approx(expected["AR100"], abs=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_another_precision(weights: str, precision: str, capsys: Captured) -> None:
    assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights, "--json", "--precision", precision]) == 0
    output, error = capsys.readouterr()
    assert json.loads(output)["AP"] >= 0
    assert ("precision: " in error) == (precision == "auto")


@pytest.mark.parametrize("flag", [["--batch-size", "0"], ["--batch-size", "many"], ["--precision", "int8"]])
def test_flags_that_make_no_sense(weights: str, flag: list[str], capsys: Captured) -> None:
    assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights, *flag]) == 2
    assert flag[0] in capsys.readouterr().err
