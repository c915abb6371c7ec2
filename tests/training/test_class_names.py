"""The splits of a data set may list their classes differently: the training matches them by name."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import deformable_detr
from deformable_detr.cli import main

Train = Callable[..., int]
PACKAGED_IMAGES = Path(deformable_detr.__file__).parent / "assets" / "pictures"
PACKAGED_TRUTH = Path(__file__).parents[1] / "fixtures" / "aquarium.json"   # of these images
STILL = ("--preset=two-stage", "--weights=demo", "--epochs=1", "--learning-rate=0", "--backbone-learning-rate=0",
         "--num-workers=0")


def reversed_ids(content: dict) -> None:
    ids = [category["id"] for category in content["categories"]]
    other = dict(zip(ids, reversed(ids), strict=True))
    for category in content["categories"]:
        category["id"] = other[category["id"]]
    for box in content["annotations"]:
        box["category_id"] = other[box["category_id"]]


def only_used(content: dict) -> None:
    """Only classes with objects, and first one without that train does not list."""
    used = {box["category_id"] for box in content["annotations"]}
    content["categories"] = [{"id": 0, "name": "anchor"},
                             *(category for category in content["categories"] if category["id"] in used)]


def first_images(content: dict, count: int) -> dict:
    kept = {image["id"] for image in content["images"][:count]}
    return {**content, "images": content["images"][:count],
            "annotations": [box for box in content["annotations"] if box["image_id"] in kept]}


@pytest.mark.parametrize("change", [reversed_ids, only_used])
def test_the_numbers_do_not_depend_on_the_order_of_classes(change: Callable[[dict], None], tmp_path: Path) -> None:
    """Weights that know the animals, and learn nothing more."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(PACKAGED_IMAGES, data / "images")
    content = first_images(json.loads(PACKAGED_TRUTH.read_text()), 4)
    (data / "train.json").write_text(json.dumps(first_images(content, 1)))
    change(content)
    (data / "val.json").write_text(json.dumps(content))
    assert main(["train", str(data), *STILL, f"--out={out}"]) == 0
    with (out / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["AP50"]) > 0.3


@pytest.mark.parametrize(("renamed", "message"), [
    ({"square": "rectangle"}, "there are objects of 'rectangle'"),
    ({}, "there are objects of 'circle'")])
def test_what_cannot_be_matched_is_refused_before_the_first_step(
        renamed: dict[str, str], message: str, train: Train, squares: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((squares / "val.json").read_text())
    for category in content["categories"]:
        category["name"] = renamed.get(category["name"], category["name"])
    if not renamed:
        content["categories"].append({"id": 1, "name": "circle"})
        content["annotations"][0]["category_id"] = 1
    (squares / "val.json").write_text(json.dumps(content))
    assert train("--out", tmp_path / "run", "--epochs", 1) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
