"""Boxes whose numbers mean something else than the format says: one fault of all boxes, whatever else is wrong."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from deformable_detr.check import check_data
from deformable_detr.check.fix import write_fixed
from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.kinds import Fault
from helpers.planted import noise
from helpers.synthetic import image_entry

WIDTH, HEIGHT = 320, 240
SIDES = np.array([WIDTH, HEIGHT] * 2)


def corners(count: int, seed: int = 0, *, most: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """Two corners of boxes anywhere in the first `most` pixels."""
    random = np.random.default_rng(seed)
    first = random.integers(0, np.array(most) - 45, (count, 2))
    return np.concatenate([first, first + random.integers(15, 45, (count, 2))], axis=1).astype(float)


def sizes(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def write(folder: Path, form: str, **splits: np.ndarray) -> Path:
    """The four numbers of each box as they are, for COCO in pixels, for YOLO divided by the image's sides."""
    for number, (split, boxes) in enumerate(splits.items()):
        noise(folder / "images" / split / "1.png", number)
        PIL.Image.open(folder / "images" / split / "1.png").resize((WIDTH, HEIGHT)).save(
            folder / "images" / split / "1.png")
        if form == "COCO":
            (folder / f"{split}.json").write_text(json.dumps({
                "images": [image_entry(1, "1.png", WIDTH, HEIGHT)], "categories": [{"id": 1, "name": "cat"}],
                "annotations": [{"id": number, "image_id": 1, "category_id": 1, "bbox": box}
                                for number, box in enumerate(boxes.tolist())]}))
        else:
            (folder / "labels" / split).mkdir(parents=True)
            (folder / "labels" / split / "1.txt").write_text("".join(
                f"0 {' '.join(map(str, box))}\n" for box in (boxes / SIDES).tolist()))
            (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    return folder


def kinds_of(folder: Path) -> set[Fault]:
    return {kind for kind, _, _ in check_data(folder, fast=True).findings.groups()}


def boxes_of(folder: Path, split: str) -> np.ndarray:
    return DataFolder(folder).read(split, Findings(strict=True)).boxes


OTHERS = {"nothing": [], "no area": [[50, 50, 0, 0]], "no height": [[200, 100, 230, 100]],
          "swapped": [[200, 100, 170, 60]], "outside": [[400, 300, 430, 330]]}


@pytest.mark.parametrize("form", ["COCO", "YOLO"])
@pytest.mark.parametrize("count", [5, 40])
@pytest.mark.parametrize("other", OTHERS)
def test_two_corners_are_found_and_repaired_whatever_else_is_wrong(tmp_path: Path, form: str, count: int,
                                                                  other: str) -> None:
    if form == "YOLO" and other == "outside":
        pytest.skip("whole pixels beyond the image are no fractions")
    train = np.concatenate([corners(count, 1), np.array(OTHERS[other]).reshape(-1, 4)])
    if count < 10:      # in the other half of the image, as few boxes elsewhere say nothing
        train[:count] = (SIDES - corners(count, 1, most=(150, 110)))[:, [2, 3, 0, 1]]
    folder = write(tmp_path / "data", form, train=train, val=corners(40, 2))
    assert Fault.BOX_CORNERS in kinds_of(folder)
    write_fixed(check_data(folder), tmp_path / "out")
    assert check_data(tmp_path / "out").findings.count("error") == 0
    np.testing.assert_allclose(boxes_of(tmp_path / "out", "val"), sizes(corners(40, 2)), atol=1e-6)
    np.testing.assert_allclose(boxes_of(tmp_path / "out", "train"), sizes(train[:count]), atol=1e-6)


@pytest.mark.parametrize("form", ["COCO", "YOLO"])
def test_corners_near_the_top_left_and_in_a_small_split(tmp_path: Path, form: str) -> None:
    """No box of train would leave its image, and two boxes alone say nothing."""
    train, val = corners(40, 1, most=(120, 90)), corners(2, 2, most=(120, 90))
    folder = write(tmp_path / "data", form, train=train, val=val)
    assert Fault.BOX_CORNERS in kinds_of(folder)
    write_fixed(check_data(folder), tmp_path / "out")
    np.testing.assert_allclose(boxes_of(tmp_path / "out", "train"), sizes(train), atol=1e-6)
    np.testing.assert_allclose(boxes_of(tmp_path / "out", "val"), sizes(val), atol=1e-6)


@pytest.mark.parametrize("form", ["COCO", "YOLO"])
@pytest.mark.parametrize("count", [2, 3])
def test_corners_are_found_where_no_split_alone_has_enough_boxes(tmp_path: Path, form: str, count: int) -> None:
    """In the half of the image where second corners, as sizes, leave it."""
    train, val = ((SIDES - corners(count, seed, most=(150, 110)))[:, [2, 3, 0, 1]] for seed in (1, 2))
    folder = write(tmp_path / "data", form, train=train, val=val)
    assert Fault.BOX_CORNERS in kinds_of(folder)
    write_fixed(check_data(folder), tmp_path / "out")
    np.testing.assert_allclose(boxes_of(tmp_path / "out", "train"), sizes(train), atol=1e-6)
    np.testing.assert_allclose(boxes_of(tmp_path / "out", "val"), sizes(val), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_corners_in_fractions_have_both_faults(tmp_path: Path, seed: int) -> None:
    train, val = corners(40, seed), corners(12, 10 + seed)
    train[0] = [40, 50, 60, 70]
    folder = write(tmp_path / "data", "COCO", train=train / SIDES, val=val / SIDES)
    assert {Fault.BOX_CORNERS, Fault.BOX_FRACTIONS} <= kinds_of(folder)
    write_fixed(check_data(folder), tmp_path / "out")
    np.testing.assert_allclose(boxes_of(tmp_path / "out", "train"), sizes(train))
    np.testing.assert_allclose(boxes_of(tmp_path / "out", "val"), sizes(val))


def test_fractions_that_leave_their_image_are_fractions_like_the_others(tmp_path: Path) -> None:
    train = np.concatenate([sizes(corners(40)), [[-10, 20, 50, 40], [300, 20, 60, 40], [0, 0, WIDTH, HEIGHT]]])
    folder = write(tmp_path / "data", "COCO", train=train / SIDES, val=sizes(corners(9)) / SIDES)
    write_fixed(check_data(folder), tmp_path / "out")
    clipped = np.concatenate([train[:40], [[0, 20, 40, 40], [300, 20, 20, 40], [0, 0, WIDTH, HEIGHT]]])
    np.testing.assert_allclose(boxes_of(tmp_path / "out", "train"), clipped)


def large(count: int, seed: int) -> np.ndarray:
    """True boxes of one large object an image: all would fit as two corners."""
    random = np.random.default_rng(seed)
    first = random.uniform(0, 0.3, (count, 2))
    size = random.uniform(0.5, 1 - first)
    return np.concatenate([first, size], axis=1) * SIDES


def sloppy(count: int, seed: int) -> np.ndarray:
    """True boxes of which many leave their image by a few pixels."""
    return large(count, seed) + np.array([0, 0, 9, 9])


@pytest.mark.parametrize("form", ["COCO", "YOLO"])
@pytest.mark.parametrize("boxes", [lambda count, seed: sizes(corners(count, seed)), large, sloppy,
                                   lambda count, seed: sizes(corners(count, seed, most=(80, 60)))],
                         ids=["anywhere", "large", "sloppy", "top left"])
@pytest.mark.parametrize("count", [1, 3, 12, 100])
def test_true_boxes_are_no_corners(tmp_path: Path, form: str, boxes, count: int) -> None:
    for seed in range(3):
        numbers = boxes(count, seed)
        if form == "YOLO":
            numbers = numbers + np.concatenate([numbers[:, 2:] / 2, np.zeros((count, 2))], axis=1)
        folder = write(tmp_path / str(seed), form, train=numbers, val=numbers)
        assert Fault.BOX_CORNERS not in kinds_of(folder)
