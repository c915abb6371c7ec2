"""The repaired copy: what is repaired in it, what is left out, and that the source stays as it was."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from deformable_detr.check import check_data
from deformable_detr.check.fix import write_fixed
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.images import read_image
from helpers.layouts import LAYOUTS, bccd
from helpers.planted import HEIGHT, WIDTH, noise, plant_coco, plant_yolo
from helpers.synthetic import box, image_entry


def fixed(folder: Path, out: Path) -> dict[str, int]:
    return dict(write_fixed(check_data(folder), out))


def write(folder: Path, boxes: list[dict], images: list[dict], split: str = "train") -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.json").write_text(json.dumps(
        {"images": images, "annotations": boxes, "categories": [{"id": 0, "name": "cat"}, {"id": 4, "name": "dog"}]}))


def read(folder: Path, split: str = "train") -> Annotations:
    return DataFolder(folder).read(split, Findings(strict=True))


def test_boxes_are_repaired(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    noise(source / "images" / "1.png", 1)
    entries = [image_entry(1, "1.png", WIDTH, HEIGHT)]
    write(source, [
        box(1, 1, 0, [0.25, 0.5, 0.5, 0.25]), box(2, 1, 4, [50, 40, -10, -20]), box(3, 1, 0, [5, 5, 0, 9]),
        box(4, 1, 0, [200, 5, 9, 9]), box(5, 1, 0, [-6, 60, 20, 20]), box(6, 1, 0, [30, 30, 20, 20], area=7),
        box(7, 1, 0, [30, 30, 20, 20]), box(8, 1, 4, [1, 2, 30, 40], iscrowd=1)], entries)
    noise(source / "images" / "2.png", 2)
    write(source, [box(1, 1, 0, [1, 2, 30, 40])], [image_entry(1, "2.png", WIDTH, HEIGHT)], "val")
    assert fixed(source, out) == {
        "boxes turned from fractions to pixels": 1, "boxes with swapped corners put right": 1,
        "boxes without area inside their image left out": 2, "boxes clipped to their image": 1,
        "boxes given twice left out once": 1}
    copy = read(out)
    assert copy.category_ids == (1, 5)
    np.testing.assert_array_equal(copy.boxes, [
        [24, 36, 48, 18], [40, 20, 10, 20], [0, 60, 14, 12], [30, 30, 20, 20], [1, 2, 30, 40]])
    assert copy.areas.tolist() == [864, 200, 168, 7, 1200]
    assert copy.labels.tolist() == [0, 1, 0, 0, 1]
    assert copy.crowd.tolist() == [False] * 4 + [True]


def test_corners_become_sizes(tmp_path: Path) -> None:
    noise(tmp_path / "source" / "images" / "1.png", 1)
    noise(tmp_path / "source" / "images" / "2.png", 2)
    corners = [[40 + n, 30 + n, 60 + n, 50 + n] for n in range(20)]
    for split, name in (("train", "1.png"), ("val", "2.png")):
        write(tmp_path / "source", [box(n, 1, 0, corner) for n, corner in enumerate(corners)],
              [image_entry(1, name, WIDTH, HEIGHT)], split)
    assert fixed(tmp_path / "source", tmp_path / "out") == {"boxes turned from corners to sizes": 40}
    np.testing.assert_array_equal(read(tmp_path / "out").boxes[:, 2:], 20)


def test_images_are_repaired(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for number in range(1, 6):
        noise(source / "images" / f"{number}.png", number)
    noise(source / "images" / "sub" / "1.PNG", 6)
    noise(source / "images" / "truly.jpg", 7, format="PNG")
    (source / "images" / "copy.png").write_bytes((source / "images" / "1.png").read_bytes())
    (source / "images" / "leak.png").write_bytes((source / "images" / "2.png").read_bytes())
    (source / "images" / "text.png").write_text("no image")
    images = [image_entry(1, "1.png", WIDTH, HEIGHT), image_entry(2, "2.png", WIDTH, HEIGHT),
              image_entry(3, "3.png", 2 * WIDTH, 2 * HEIGHT), image_entry(4, "4.png", 50, 50),
              image_entry(5, "sub/1.PNG", WIDTH, HEIGHT), image_entry(6, "truly.jpg", WIDTH, HEIGHT),
              image_entry(7, "copy.png", WIDTH, HEIGHT), image_entry(8, "text.png", WIDTH, HEIGHT),
              image_entry(9, "5.png", WIDTH, HEIGHT), image_entry(10, "5.png", WIDTH, HEIGHT)]
    write(source, [box(1, 3, 0, [20, 40, 60, 80]), box(2, 7, 0, [1, 2, 30, 40]), box(3, 9, 0, [1, 2, 30, 40]),
                   box(4, 10, 4, [9, 9, 9, 9])], images)
    write(source, [box(1, 1, 0, [1, 2, 30, 40])], [image_entry(1, "leak.png", WIDTH, HEIGHT)], "val")
    assert fixed(source, out) == {
        "images listed twice made one": 1, "unreadable images left out": 1,
        "copies of images left out": 2, "images whose boxes were scaled to the size of the file": 1,
        "images of another shape than the annotations say left out": 1}
    copy = read(out)
    assert [image.file_name for image in copy.images] == ["3.png", "1.PNG", "truly.png", "copy.png", "5.png"]
    assert [image.size for image in copy.images] == [(HEIGHT, WIDTH)] * 5
    np.testing.assert_array_equal(copy.boxes, [[10, 20, 30, 40], [1, 2, 30, 40], [1, 2, 30, 40], [9, 9, 9, 9]])
    assert copy.image_index.tolist() == [0, 3, 4, 4]
    assert read_image(out / "images" / "train" / "1.PNG").shape == (HEIGHT, WIDTH, 3)
    assert check_data(out).findings.count("error") == 0


def test_names_that_two_folders_share(tmp_path: Path) -> None:
    names = ["a/x.png", "b/x.png", "b/X.png"]
    for number, name in enumerate([*names, "val.png"]):
        noise(tmp_path / "source" / "images" / name, number)
    images = [image_entry(number, name, WIDTH, HEIGHT) for number, name in enumerate(names)]
    write(tmp_path / "source", [], images)
    write(tmp_path / "source", [], [image_entry(1, "val.png", WIDTH, HEIGHT)], "val")
    assert fixed(tmp_path / "source", tmp_path / "out") == {}
    assert sorted(path.name for path in (tmp_path / "out" / "images" / "train").iterdir()) == [
        "X-3.png", "x-2.png", "x.png"]


def test_a_fast_checkup_is_not_enough(tmp_path: Path) -> None:
    plant_coco(tmp_path)
    with pytest.raises(ValueError, match="expected one that has decoded the images"):
        write_fixed(check_data(tmp_path, fast=True), tmp_path / "out")


def test_what_reading_leaves_out_is_counted(tmp_path: Path) -> None:
    plant_yolo(tmp_path / "source")
    done = fixed(tmp_path / "source", tmp_path / "out")
    assert done["entries left out"] == 3
    assert done["objects of no class left out"] == 2
    assert done["boxes in pixels taken as such"] == 1
    assert done["unreadable images left out"] == 1


@pytest.mark.parametrize("plant", [plant_coco, plant_yolo])
def test_the_copy_of_a_planted_set_has_no_errors_and_the_source_is_as_it_was(tmp_path: Path, plant) -> None:
    plant(tmp_path / "source")
    before = digests(tmp_path / "source")
    fixed(tmp_path / "source", tmp_path / "out")
    assert digests(tmp_path / "source") == before
    errors = [str(finding) for kind, _, kept in check_data(tmp_path / "out").findings.groups()
              for finding in kept if kind.severity == "error"]
    assert errors == []


def digests(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout", ["YOLO, Roboflow", "VOC", "parquet"])
def test_a_sound_set_is_copied_as_it_is(tmp_path: Path, layout: str) -> None:
    if layout == "parquet":
        pytest.importorskip("pyarrow")
    names, splits = bccd()
    LAYOUTS[layout](tmp_path / "source", names, splits)
    fixed(tmp_path / "source", tmp_path / "out")
    for split, truths in splits.items():
        copy = read(tmp_path / "out", split)
        assert [image.file_name for image in copy.images] == [truth.file.name for truth in truths]
        np.testing.assert_allclose(copy.boxes, [b for truth in truths for _, b in truth.objects], atol=1e-9)
        assert [copy.names[label] for label in copy.labels] == [
            names[label] for truth in truths for label, _ in truth.objects]
        for truth in truths:
            assert (tmp_path / "out" / "images" / split / truth.file.name).read_bytes() == truth.file.read_bytes()
