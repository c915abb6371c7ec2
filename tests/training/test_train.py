"""`ddetr train` from the command line: what it leaves, how it resumes, starts and stops."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

from deformable_detr.cli import main
from deformable_detr.datasets.kinds import Fault
from deformable_detr.detections import Postprocessing
from deformable_detr.images import read_image
from deformable_detr.structures import Predictions
from deformable_detr.training.backbones import load_backbone
from deformable_detr.training.origin import read_origin
from deformable_detr.training.start import Start
from deformable_detr.training.step import Step
from deformable_detr.weights import ModelInfo, WeightsError, load, save
from helpers.models import small_model

Train = Callable[..., int]


def test_a_run_leaves_all_its_files(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 2) == 0
    assert {path.name for path in out.iterdir()} == {
        "best.safetensors", "last.safetensors", "state.safetensors", "config.yaml", "curves.png", "metrics.csv",
        "report.html", "validation.png"}
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["loss"]) > 0 and 0 <= float(row["AP"]) <= 1 for row in rows)
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert settings["recipe"]["epochs"] == 2
    assert settings["classes"] == {7: "square"}
    model, info = load(out / "last.safetensors")
    assert model.config.num_classes == 1
    assert (info.names, info.category_ids) == (("square",), (7,))
    assert info.provenance["command"].startswith("ddetr train ")
    assert info.provenance["command"].endswith(" --epochs 2")
    for name in ("curves.png", "validation.png"):
        assert read_image(out / name).shape[1] > 100
    printed = capsys.readouterr()
    assert "ddetr detect IMAGE --weights" in printed.out
    assert "epoch 2/2: loss" in printed.err


def test_a_resumed_run_ends_as_an_undisturbed_one(train: Train, tmp_path: Path) -> None:
    flags = ("--dropout", 0.1, "--drop-epoch", 2)
    assert train("--out", tmp_path / "whole", "--epochs", 3, *flags) == 0
    assert train("--out", tmp_path / "parts", "--epochs", 1, *flags) == 0
    assert train("--out", tmp_path / "parts", "--epochs", 3, *flags, "--resume") == 0
    whole, _ = load(tmp_path / "whole" / "last.safetensors")
    parts, _ = load(tmp_path / "parts" / "last.safetensors")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    assert len((tmp_path / "parts" / "metrics.csv").read_text().splitlines()) == 4


def test_a_nan_stops_with_the_name_of_the_image(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    finite = Step._finite_losses

    def poisoned(self: Step, predictions: Predictions, targets: list, *others: Any) -> object:
        boxes = predictions.boxes.clone()
        for index, target in enumerate(targets):
            if target.image_id == 2:
                boxes[0, index] = torch.nan
        return finite(self, Predictions(predictions.logits, boxes, predictions.proposals), targets, *others)

    monkeypatch.setattr(Step, "_finite_losses", poisoned)
    assert train("--out", tmp_path / "run", "--epochs", 1) == 1
    assert "2.png" in capsys.readouterr().err


def test_a_nan_without_objects_is_found_too(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    finite = Step._finite_losses

    def poisoned(self: Step, predictions: Predictions, targets: list, *others: Any) -> object:
        logits = predictions.logits.clone()
        for index, target in enumerate(targets):
            if target.image_id == 4:
                logits[0, index] = torch.nan
        return finite(self, Predictions(logits, predictions.boxes, predictions.proposals), targets, *others)

    monkeypatch.setattr(Step, "_finite_losses", poisoned)
    assert train("--out", tmp_path / "run", "--epochs", 1) == 1
    assert "empty.png" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "message"), [
    (["--epochs", "0"], "epochs: expected at least 1, got 0"),
    (["--epoch", "3"], "Did you mean --epochs?"),
    (["--preset", "two"], "two-stage"),
    (["--width", "36"], "width: expected a multiple of 32"),
    (["--weights", "nothing.safetensors"], "a file or a folder, got 'nothing.safetensors'"),
    (["--backbone-weights", "nothing.pth"], "nothing.pth: no such file"),
    (["--backbone", "resnet50.nosuch"], "backbone: Invalid pretrained tag (nosuch)"),
    (["--backbone", "densenet121", "--dilation"], "backbone: timm cannot build 'densenet121' with dilation"),
    (["--resume"], "no run to resume"),
])
def test_wrong_calls(train: Train, tmp_path: Path, flags: list[str], message: str,
                     capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_ctrl_c_ends_in_one_line(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Step, "__call__", interrupted)
    assert train("--out", tmp_path / "run", "--epochs", 1) == 130
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert f"interrupted; nothing was saved in {tmp_path / 'run'} for --resume to go on from" in last_line


def test_weights_fix_the_architecture(squares: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from deformable_detr.cli import main

    assert main(["train", str(squares), "--weights", "any", "--width", "64", "--num-queries", "9",
                 "--dropout", "0.1"]) == 2
    assert "weights: expected no change of width, num_queries, since weights fix the" in capsys.readouterr().err


def test_what_weights_leave_open_can_be_changed(tmp_path: Path) -> None:
    model = small_model()
    save(tmp_path / "old.safetensors", model, ModelInfo(("a", "b", "c"), (1, 2, 3)))
    changed = read_origin(Start(weights=tmp_path / "old.safetensors", changes={"dropout": 0.2}, nms_threshold=0.7))
    assert changed.config == replace(model.config, dropout=0.2)
    assert changed.postprocessing == Postprocessing(nms_threshold=0.7)
    assert changed.trained is not None
    trained = changed.model(("a", "b", "c"), seed=0)
    assert trained.config == changed.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(trained.state_dict()[name], tensor), name
    assert changed.model(("d",), seed=0).config.dropout == 0.2


def test_a_run_is_not_overwritten_and_not_changed(train: Train, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 1) == 0
    assert train("--out", out, "--epochs", 1) == 2
    assert "holds another run (choose another --out, or go on with a run by --resume)" in capsys.readouterr().err
    assert train("--out", out, "--epochs", 2, "--learning-rate", 0.1, "--resume") == 2
    assert "recipe.learning_rate: the run has 0.0002, got 0.1 (--force accepts them)" in capsys.readouterr().err


def test_a_bad_image_stops_with_its_name(train: Train, squares: Path, tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    (squares / "images" / "3.png").write_text("no image")
    assert train("--out", tmp_path / "run", "--epochs", 1) == 1
    assert "3.png" in capsys.readouterr().err


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_backbone_weights_by_name_or_by_order(tmp_path: Path, backbone: str) -> None:
    torch.manual_seed(3)
    trained = timm.create_model(backbone).state_dict()
    torch.save(trained, tmp_path / "named.pth")
    torch.save({f"_{index}": tensor for index, (name, tensor) in enumerate(trained.items())
                if not name.endswith("num_batches_tracked")}, tmp_path / "foreign.pth")
    by_name, by_order = small_model(backbone=backbone), small_model(backbone=backbone)
    load_backbone(by_name, tmp_path / "named.pth")
    load_backbone(by_order, tmp_path / "foreign.pth")
    trained_sums = {tensor.double().sum().item() for tensor in trained.values()}
    for name, tensor in by_name.backbone.state_dict().items():
        assert torch.equal(tensor, by_order.backbone.state_dict()[name]), name
        assert tensor.double().sum().item() in trained_sums


def test_backbone_weights_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not fit the backbone test_resnet"):
        load_backbone(small_model(backbone="test_resnet"), tmp_path / "other.pth")


def test_the_backbones_own_weights_are_fetched(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    create, asked = timm.create_model, []

    def recorded(name: str, pretrained: bool = False, **kwargs: object) -> object:
        asked.append(pretrained)
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", recorded)
    assert train("--out", tmp_path / "run", "--epochs", 1, "--backbone-weights", "pretrained") == 0
    assert asked.count(True) == 1
    assert "random weights" not in capsys.readouterr().err


def test_weights_that_cannot_be_fetched(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    def offline(*args: object, **kwargs: object) -> object:
        raise RuntimeError("no network\nat all")

    monkeypatch.setattr(timm, "create_model", offline)
    assert train("--out", tmp_path / "run", "--backbone-weights", "pretrained") == 2
    assert "cannot fetch the weights of 'test_efficientnet' (no network at all)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_report_that_fails_does_not_affect_the_run(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left\non device")

    monkeypatch.setattr("deformable_detr.report.page.write_whole", full)
    assert train("--out", tmp_path / "run", "--epochs", 1) == 0
    assert f"no {tmp_path / 'run' / 'report.html'}: OSError: No space left on device" in caplog.text
    assert (tmp_path / "run" / "best.safetensors").exists()
    assert not (tmp_path / "run" / "report.html").exists()


def test_any_format_trains_and_warnings_come_first(train: Train, squares: Path, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((squares / "train.json").read_text())
    (squares / "labels").mkdir()
    for image in content["images"]:
        boxes = [box["bbox"] for box in content["annotations"] if box["image_id"] == image["id"]]
        (squares / "labels" / f"{Path(image['file_name']).stem}.txt").write_text("".join(
            f"0 {(x + w / 2) / 64} {(y + h / 2) / 64} {w / 64} {h / 64}\n" for x, y, w, h in boxes))
    for split in ("train", "val"):
        (squares / f"{split}.json").unlink()
    shutil.copytree(squares / "labels", squares / "val", dirs_exist_ok=True)
    (squares / "data.yaml").write_text("names: [square]\ntrain: images\nval: val\n")
    assert train("--epochs", 1, "--out", tmp_path / "run") == 0
    said = capsys.readouterr().err
    assert f"classes with few objects: 1 (first: {squares / 'data.yaml'}: class 'square': 4 objects in train)" in said
    weights = str(tmp_path / "run" / "last.safetensors")
    assert load(weights)[1].names == ("square",)
    assert main(["eval", str(squares), "--weights", weights, "--json"]) == 0


def test_warnings_come_once_from_the_first_of_several_processes(train: Train, squares: Path, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((squares / "train.json").read_text())
    content["annotations"].append({**content["annotations"][0], "id": 99, "bbox": [1, 1, 0, 5]})
    (squares / "train.json").write_text(json.dumps(content))
    (squares / "labels").mkdir()
    (squares / "labels" / "0.txt").touch()
    (squares / "data.yaml").write_text("names: [square]\ntrain: images\n")
    (tmp_path / "state.safetensors").touch()
    nothing_to_resume = ("--resume", "--out", tmp_path)
    assert train(*nothing_to_resume) == 2
    said = capsys.readouterr().err
    for kind in (Fault.OTHER_ANNOTATIONS, Fault.BOX_EMPTY, Fault.CLASS_RARE):
        assert said.count(kind.title) == 1
    monkeypatch.setenv("RANK", "1")
    assert train(*nothing_to_resume) == 2
    said = capsys.readouterr().err
    assert not [kind for kind in Fault if kind.title in said]


def test_useless_training_data_is_refused(train: Train, squares: Path, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((squares / "train.json").read_text())
    (squares / "train.json").write_text(json.dumps({**content, "annotations": []}))
    assert train("--epochs", 1, "--out", tmp_path / "run") == 2
    assert "train.json: no object in train, which has 5 images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
