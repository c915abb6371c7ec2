"""`ddetr check`: what it prints, writes and returns."""

import json
from pathlib import Path
from typing import NoReturn

import numpy as np
import PIL.Image
import pytest

from deformable_detr import cli
from deformable_detr.check import Limits
from deformable_detr.images import read_image
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.training.choices import plan_training
from deformable_detr.training.start import Start
from helpers.layouts import LAYOUTS, bccd
from helpers.planted import plant_coco, plant_yolo
from helpers.synthetic import box, image_entry

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a call."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_errors_exit_with_1_and_each_says_where_and_what_to_do(folder: Path, capsys: Captured) -> None:
    plant_yolo(folder / "data")
    assert cli.main(["check", "data", "--show", "2"]) == 1
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0] == "data: YOLO"
    assert lines[1].split() == ["train", "10", "images", "21", "objects", "3", "images", "without", "objects"]
    start = lines.index("error entry  entries with a missing or impossible field: 3")
    assert lines[start + 1] == ("    data/labels/train/1.txt:3: expected a class and four numbers (centre x, centre y, "
                                "width, height), or a class and the points of an outline, got 4 words")
    assert lines[start + 2].startswith("    data/labels/train/1.txt:4: expected numbers, got ")
    assert lines[start + 3:start + 5] == ["    ... and 1 more", "    -> correct the field, or remove the entry"]
    severities = [line.split()[0] for line in lines if line.startswith(("error ", "warning "))]
    assert severities == sorted(severities)
    assert lines[-2].startswith("errors: 11, warnings: ")
    assert lines[-1] == "check.png: statistics and a contact sheet"
    assert output.err == ""
    assert read_image("check.png").shape[1] == 1600


def test_warnings_only_exit_with_0(folder: Path, capsys: Captured) -> None:
    names, splits = bccd()
    LAYOUTS["YOLO"](folder / "data", names, splits)
    (folder / "data" / "labels" / "val" / "orphan.txt").touch()
    assert cli.main(["check", "data", "--json", "--size", "800"]) == 0
    assert [group["code"] for group in json.loads(capsys.readouterr().out)["findings"]] == [
        "label-orphan", "path-elsewhere"]


def test_advice_names_the_flags_that_help(folder: Path, capsys: Captured) -> None:
    plant_coco(folder / "data")
    cli.main(["check", "data", "--json", "--num-queries", "20", "--size", "72"])
    advice = {group["code"]: group["advice"] for group in json.loads(capsys.readouterr().out)["findings"]}
    assert advice["box-swapped"] == "swap the corners; --fix does so"
    assert advice["box-tiny"].endswith(" (--size)")
    assert advice["objects-many"].endswith(" (--num-queries)")


def test_json_is_one_object_and_has_every_finding(folder: Path, capsys: Captured) -> None:
    plant_coco(folder / "data")
    assert cli.main(["check", "data", "--json", "--num-queries", "20", "--size", "72"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["data", "format", "val_is_drawn", "splits", "errors", "warnings", "findings", "fixed"]
    assert (found["data"], found["format"], found["fixed"]) == ("data", "COCO", None)
    assert found["splits"]["val"] == {"pictures": 3, "objects": 3, "empty_pictures": 1,
                                      "classes": {"cell": 1, "dog": 1, "Cell": 1}}
    assert sum(group["count"] for group in found["findings"]) == found["errors"] + found["warnings"]
    groups = {group["code"]: group for group in found["findings"]}
    assert list(groups["box-first-pixel"]) == ["code", "severity", "title", "advice", "count", "places"]
    assert groups["box-first-pixel"]["severity"] == "warning"
    assert groups["box-first-pixel"]["places"] == [{
        "file": "data/train.json", "line": None, "entry": "annotation 504",
        "message": "x 0.1, y 0.2, width 0.3, height 0.4 of a dog in 10.png (96 x 72)"}]
    assert sorted(path.name for path in folder.iterdir()) == ["data", "outside.png"]


def test_by_default_the_limits_are_those_of_a_training_without_flags(folder: Path, capsys: Captured) -> None:
    images = folder / "data" / "images"
    images.mkdir(parents=True)
    for shade, split in enumerate(("train", "val")):
        PIL.Image.new("L", (1200, 900), shade).save(images / f"{split}.png")
    boxes = [box(number, 1, 1, [11 * number, 5, 10, 10]) for number in range(101)]
    for split in ("train", "val"):
        (folder / "data" / f"{split}.json").write_text(json.dumps({
            "images": [image_entry(1, f"{split}.png", 1200, 900)], "categories": [{"id": 1, "name": "cell"}],
            "annotations": boxes}))
    origin = plan_training(Start(), {}, DetectionDataset(folder / "data", "train").annotations).origin
    limits = ("--size", str(origin.preprocessing.size), "--max-size", str(origin.preprocessing.max_size),
              "--num-queries", str(origin.config.num_queries))
    capsys.readouterr()
    assert origin.config.finest_stride == Limits().stride
    assert cli.main(["check", "data", "--json", "--fast"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"objects-many", "box-tiny"} <= {group["code"] for group in found["findings"]}
    assert cli.main(["check", "data", "--json", "--fast", *limits]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert cli.main(["check", "data", "--json", "--fast", "--size", "800", "--num-queries", "300"]) == 0
    assert not {"objects-many", "box-tiny"} & {group["code"] for group in json.loads(
        capsys.readouterr().out)["findings"]}


def test_a_cleaned_copy(folder: Path, capsys: Captured) -> None:
    plant_coco(folder / "data")
    assert cli.main(["check", "data", "--json", "--fix", "new/copy"]) == 1
    fixed = json.loads(capsys.readouterr().out)["fixed"]
    assert fixed["folder"] == "new/copy"
    assert fixed["done"]["boxes with swapped corners put right"] == 1
    assert cli.main(["check", "new/copy", "--json"]) == 0


def test_a_broken_data_yaml_is_a_finding(folder: Path, capsys: Captured) -> None:
    names, splits = bccd()
    LAYOUTS["YOLO"](folder / "data", names, splits)
    (folder / "data" / "data.yaml").write_text("names: [a, b\ntrain: c\n")
    assert cli.main(["check", "data", "--fast"]) == 1
    assert "data/data.yaml:2: not valid YAML: " in capsys.readouterr().out


def test_findings_are_printed_even_if_nothing_can_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: Captured) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    names, splits = bccd()
    LAYOUTS["YOLO"](folder / "data", names, {"train": splits["val"]})
    monkeypatch.setattr("deformable_detr.cli.check.write_marked", full)
    assert cli.main(["check", "data"]) == 1
    output = capsys.readouterr()
    assert output.out.splitlines()[-1].startswith("errors: 0, warnings: ")
    assert output.err.endswith("\nddetr: check.png: not written: [Errno 28] No space left on device\n")
    monkeypatch.setattr("deformable_detr.check.fix.write_fixed", full)
    assert cli.main(["check", "data", "--json", "--fix", "copy"]) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["fixed"] is None
    assert output.err.endswith("\nddetr: copy: not written completely: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(("call", "message"), [
    ("check", "DATA"),
    ("check absent", "absent: expected the folder of a data set, got nothing"),
    ("check data/data.txt", "data/data.txt: expected the folder of a data set, got a file"),
    ("check data/data.yaml --fix data/copy", "--fix: expected a folder outside of the data set, got data/copy"),
    ("check empty", "empty: no data set found"),
    ("check data --fix data/copy", "--fix: expected a folder outside of the data set, got data/copy"),
    ("check data --fix .", "--fix: expected a new or empty folder, got ."),
    ("check data --fix copy --fast", "--fix: needs the images; leave out --fast"),
    ("check data --fix data/data.yaml", "--fix: expected a new or empty folder"),
    ("check data --sheet data/sheet.png", "--sheet: expected a file outside of the data set, got data/sheet.png"),
    ("check data --sheet nowhere/sheet.png", "--sheet: expected a file in a folder that exists, got nowhere/sheet.png"),
    ("check data --size 0", "--size"),
    ("check data --size 100 --max-size 50", "--max-size: expected at least --size (100), got 50"),
])
def test_wrong_calls(folder: Path, call: str, message: str, capsys: Captured) -> None:
    names, splits = bccd()
    LAYOUTS["YOLO"](folder / "data", names, {"train": splits["val"][:3]})
    Path("empty").mkdir()
    Path("data/data.txt").touch()
    assert cli.main(call.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("ddetr: ")
    assert output.err.count("\n") == 1
    assert message in output.err
    assert sorted(path.name for path in folder.iterdir()) == ["data", "empty"]


def test_from_within_the_data_set_nothing_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, splits = bccd()
    LAYOUTS["VOC"](folder / "data", names, {"train": splits["val"]})
    monkeypatch.chdir(folder / "data")
    assert cli.main(["check", "."]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["Annotations", "ImageSets", "JPEGImages"]


def test_the_sheet_accepts_any_names_and_images(folder: Path) -> None:
    image_folder = folder / "data" / "images"
    image_folder.mkdir(parents=True)
    images = []
    for number, (name, size) in enumerate((("$x_1$ 猫.png", (30, 20)), ("line.png", (1, 400)), ("text.png", (5, 5)))):
        PIL.Image.fromarray(np.full(size, 99, np.uint8)).save(image_folder / name)
        images.append({"id": number, "file_name": name, "width": size[1], "height": size[0]})
    (image_folder / "text.png").write_text("no image")
    boxes = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    for split in ("train", "val"):
        (folder / "data" / f"{split}.json").write_text(json.dumps({
            "images": images, "annotations": boxes if split == "train" else [],
            "categories": [{"id": 1, "name": "$\\frac{$ 猫"}]}))
    assert cli.main(["check", "data", "--sheet", "sheet.png"]) == 1
    assert read_image("sheet.png").shape[1] == 1600
