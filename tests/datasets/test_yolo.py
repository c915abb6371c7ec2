"""What a YOLO data set says of itself decides how it is read."""

from pathlib import Path

import pytest
import yaml

from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.kinds import Fault
from helpers.planted import noise


def written(folder: Path, labels: dict[str, str], **settings: object) -> Path:
    """Images and labels at the places of `labels`: images/train/1 becomes images/train/1.png, labels/train/1.txt."""
    for number, (name, lines) in enumerate(labels.items()):
        noise(folder / f"{name}.png", number)
        label = folder / f"{name.replace('images', 'labels')}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(lines)
    (folder / "data.yaml").write_text(yaml.safe_dump({"names": ["cat", "dog"], **settings}))
    return folder


BOX = "0 0.5 0.5 0.5 0.5\n"


@pytest.mark.parametrize(("train", "val"), [
    ("/home/me/cells/train/images", "/home/me/cells/valid/images"),
    ("C:\\cells\\train\\images", "C:\\cells\\valid\\images"),
    ("images", "/home/me/cells/valid/images"), ("train/images", "valid/images"),
    ("/cells/images", "/cells/valid/images")])
def test_a_missing_split_is_never_another_one(tmp_path: Path, train: str, val: str) -> None:
    written(tmp_path, {"images/1": BOX, "images/2": BOX}, train=train, val=val)
    with pytest.raises(DataError, match=r"data\.yaml: val"):
        DataFolder(tmp_path).read("val", Findings())


@pytest.mark.parametrize(("settings", "count"), [
    ({"train": "/cells/images/train", "val": "/cells/images/val"}, 2),
    ({"path": "../cells", "train": "images/train", "val": "images/val"}, 2),
    ({"path": "/x/cells", "train": ["images/train"], "val": "images/val"}, 2),
    ({"train": "../images/train", "val": "../images/val"}, 0), ({"path": ".", "train": "images/train",
                                                                  "val": "images/val"}, 0)])
def test_a_path_of_another_machine_is_reported(tmp_path: Path, settings: dict[str, str], count: int) -> None:
    written(tmp_path, {"images/train/1": BOX, "images/val/2": BOX}, **settings)
    findings = Findings()
    folder = DataFolder(tmp_path, findings)
    assert [image.file_name for image in folder.read("val", findings).images] == ["images/val/2.png"]
    assert [(kind, number) for kind, number, _ in findings.groups()] == ([(Fault.PATH_ELSEWHERE, count)] if count
                                                                       else [])


CENTRED = [24, 18, 48, 36]      # x, y, width, height of the box of `BOX` in an image of 96 x 72
PLACES = {"train": "images", "val": "images"}


def boxes(folder: Path) -> list[list[float]]:
    return DataFolder(folder).read("train", Findings(strict=True)).boxes.tolist()


@pytest.mark.parametrize(("shape", "points"), [
    ([3, 2], "0.5 0.4 0.45 0.5 0 0"), ([4, 3], "0.5 0.4 2 0.45 0.5 1 0 0 0 0.6 0.6 2"), ([2, 2], "0.3 0.3 0.7 0.7"),
    ([17, 3], "0.5 0.4 2 " * 17), ([3, 2], "0.1 0.9 0.9 0.1 0.5 0.5")])
def test_key_points_leave_the_box_alone(tmp_path: Path, shape: list[int], points: str) -> None:
    written(tmp_path, {"images/1": f"0 0.5 0.5 0.5 0.5 {points}\n"}, **PLACES, kpt_shape=shape)
    assert boxes(tmp_path) == [CENTRED]


@pytest.mark.parametrize("number", ["0.87", "12"])
def test_a_score_or_a_track_leaves_the_box_alone(tmp_path: Path, number: str) -> None:
    written(tmp_path, {"images/1": f"0 0.5 0.5 0.5 0.5 {number}\n{BOX}"}, **PLACES)
    assert boxes(tmp_path) == [CENTRED, CENTRED]


@pytest.mark.parametrize("before", ["", BOX])
@pytest.mark.parametrize("points", [
    "0.5 0.4 0.45 0.5 0.6 0.6", "0.5 0.4 2 0.45 0.5 1 0.6 0.6 2 0 0 0", "0.3 0.3 0.7 0.6"])
def test_what_may_be_key_points_or_an_outline_is_refused(tmp_path: Path, points: str, before: str) -> None:
    line = f"0 0.5 0.5 0.5 0.5 {points}\n"
    written(tmp_path, {"images/1": before + line, "images/2": line * 2}, **PLACES)
    with pytest.raises(DataError, match=r"data\.yaml: kpt_shape: every line has .* words, which may be"):
        boxes(tmp_path)
    written(tmp_path, {}, **PLACES, task="segment")
    assert len(boxes(tmp_path)) == 3 + bool(before)


@pytest.mark.parametrize("lines", [
    "0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n",                                  # an oriented box
    "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n",
    "0 0.25 0.3 0.75 0.25 0.5 0.75\n0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.4\n",    # of different lengths
    f"{BOX}1 0.5 0.25 0.75 0.5 0.625 1\n"])                                      # beside a plain box
def test_points_are_enclosed(tmp_path: Path, lines: str) -> None:
    written(tmp_path, {"images/1": lines}, **PLACES)
    found = boxes(tmp_path)
    assert len(found) == len(lines.splitlines())
    if lines.count("\n") == 1:
        assert found == [CENTRED]


@pytest.mark.parametrize(("settings", "words", "message"), [
    ({}, 56, r"kpt_shape: \[17, 3\]"), ({"kpt_shape": [17, 3]}, 39, "17 key points of 3 numbers .* 56 words, got 39"),
    ({"kpt_shape": [2, 2]}, 11, "2 key points of 2 numbers"),
    ({"kpt_shape": 17}, 56, "kpt_shape: expected the number")])
def test_key_points_that_cannot_be_told(tmp_path: Path, settings: dict[str, object], words: int, message: str) -> None:
    written(tmp_path, {"images/1": "0" + " 0.5" * (words - 1) + "\n"}, **PLACES, **settings)
    with pytest.raises(DataError, match=message):
        boxes(tmp_path)
