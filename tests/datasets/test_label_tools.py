"""LabelMe, CVAT for images and Hugging Face's image folders: shapes of every kind, and what is at fault in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.folder import DataFolder


def image(path: Path, size: tuple[int, int] = (100, 80)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size).save(path)


def read(folder: Path) -> tuple[Annotations, list[str]]:
    """The data set's only split, and what was found at fault."""
    findings = Findings()
    source = DataFolder(folder, findings).source
    annotations = source.read("train", findings)
    return annotations, [str(finding) for _, _, kept in findings.groups() for finding in kept]


def labelme(folder: Path, shapes: list[Any], **fields: Any) -> None:
    image(folder / "a.png")
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "a.png", "imageData": None,
               "imageWidth": 100, "imageHeight": 80, **fields}
    (folder / "a.json").write_text(json.dumps(content))


SHAPES = [
    ({"shape_type": "rectangle", "points": [[30, 20], [10, 60]]}, (10, 20, 20, 40)),
    ({"shape_type": "polygon", "points": [[10, 10], [30, 12], [20, 50]]}, (10, 10, 20, 40)),
    ({"shape_type": "circle", "points": [[50, 40], [53, 44]]}, (45, 35, 10, 10)),
    ({"shape_type": "linestrip", "points": [[1, 2], [5, 9], [3, 4]]}, (1, 2, 4, 7)),
    ({"points": [[1.5, 2], [5, 9.5]]}, (1.5, 2, 3.5, 7.5))]


@pytest.mark.parametrize(("shape", "box"), SHAPES)
def test_shapes_of_labelme(shape: dict[str, Any], box: tuple[float, ...], tmp_path: Path) -> None:
    labelme(tmp_path, [{"label": "猫", **shape}])
    annotations, faults = read(tmp_path)
    assert annotations.names == ("猫",)
    np.testing.assert_allclose(annotations.boxes, [box])
    assert faults == []


@pytest.mark.parametrize(("shape", "message"), [
    ({"label": "a", "shape_type": "point", "points": [[1, 2]]}, "points: expected at least two of x and y each"),
    ({"label": "a", "points": [[1, 2], [3, "x"]]}, "points: expected at least two"),
    ({"label": "a", "points": [[1, 2], [3, float("inf")]]}, "points: expected at least two"),
    ({"label": None, "points": [[1, 2], [3, 4]]}, "name: expected a text, got nothing"),
    ({"label": "a\u001b[2J", "points": [[1, 2], [3, 4]]}, "name: expected no control characters"),
    ("shape", "expected an object, got 'shape'")])
def test_faults_of_labelme(shape: Any, message: str, tmp_path: Path) -> None:
    labelme(tmp_path, [{"label": "good", "points": [[1, 2], [3, 4]]}, shape])
    annotations, faults = read(tmp_path)
    assert len(annotations.boxes) == 1
    assert len(faults) == 1
    assert message in faults[0]
    assert "a.json" in faults[0]


def test_an_image_of_labelme_without_size_is_measured(tmp_path: Path) -> None:
    labelme(tmp_path, [{"label": "a", "points": [[1, 2], [3, 4]]}], imageWidth=None, imageHeight=None,
            imagePath="../../elsewhere/a.png")
    annotations, _ = read(tmp_path)
    assert annotations.images[0].size == (80, 100)


def test_a_damaged_file_of_labelme_is_one_fault(tmp_path: Path) -> None:
    labelme(tmp_path, [{"label": "a", "points": [[1, 2], [3, 4]]}])
    image(tmp_path / "b.png")
    (tmp_path / "b.json").write_text('{"version": "5", "shapes": [')
    annotations, faults = read(tmp_path)
    assert len(annotations.images) == 1
    assert any("b.json" in fault and "JSON" in fault for fault in faults)


def cvat(folder: Path, shapes: str, meta: str = "", images: str = "images") -> None:
    image(folder / images / "a.png")
    (folder / "annotations.xml").write_text(
        f'<?xml version="1.0"?>\n<annotations>{meta}\n<image id="0" name="a.png" width="100" height="80">\n{shapes}\n'
        "</image></annotations>")


@pytest.mark.parametrize(("shape", "box"), [
    ('<box label="a" xtl="10" ytl="20" xbr="30" ybr="60"/>', (10, 20, 20, 40)),
    ('<box label="a" xtl="10" ytl="20" xbr="30" ybr="60" rotation="90"/>', (0, 30, 40, 20)),
    ('<polygon label="a" points="10,10;30,12;20,50"/>', (10, 10, 20, 40)),
    ('<polyline label="a" points="1,2;5,9"/>', (1, 2, 4, 7)),
    ('<ellipse label="a" cx="50" cy="40" rx="5" ry="3"/>', (45, 37, 10, 6)),
    ('<mask label="a" rle="1, 2" left="3" top="4" width="5" height="6"/>', (3, 4, 5, 6))])
def test_shapes_of_cvat(shape: str, box: tuple[float, ...], tmp_path: Path) -> None:
    cvat(tmp_path, shape + '<tag label="b"/><points label="a" points="1,2"/>')
    annotations, faults = read(tmp_path)
    assert annotations.names == ("a",)
    np.testing.assert_allclose(annotations.boxes, [box], atol=1e-9)
    assert faults == []


def test_classes_of_cvat_are_those_of_its_task(tmp_path: Path) -> None:
    cvat(tmp_path, '<box label="b" xtl="10" ytl="20" xbr="30" ybr="60"/>',
         "<meta><job><labels><label><name>z</name></label><label><name>b</name></label></labels></job></meta>")
    annotations, _ = read(tmp_path)
    assert annotations.names == ("z", "b")
    assert annotations.labels.tolist() == [1]


@pytest.mark.parametrize(("shape", "message"), [
    ('<box label="a" xtl="x" ytl="20" xbr="30" ybr="60"/>', "xtl: expected a number of pixels, got 'x'"),
    ('<box label="a" xtl="1" ytl="20" xbr="nan" ybr="60"/>', "xbr: expected a number of pixels, got 'nan'"),
    ('<box label="a"/>', "xtl: expected a number of pixels, got nothing"),
    ('<polygon label="a" points="1;2"/>', "points: expected a number of pixels"),
    ('<box xtl="10" ytl="20" xbr="30" ybr="60"/>', "name: expected a text, got nothing"),
    ('<cuboid label="a"/>', "expected a box or an outline, got <cuboid>")])
def test_faults_of_cvat(shape: str, message: str, tmp_path: Path) -> None:
    cvat(tmp_path, f'<box label="a" xtl="1" ytl="2" xbr="3" ybr="6"/>\n{shape}')
    annotations, faults = read(tmp_path)
    assert len(annotations.boxes) == 1
    assert len(faults) == 1
    assert message in faults[0]
    assert "annotations.xml:5" in faults[0]


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "absent.png"])
def test_images_of_cvat_lie_in_the_folder(name: str, tmp_path: Path) -> None:
    cvat(tmp_path / "data", '<box label="a" xtl="1" ytl="2" xbr="3" ybr="6"/>')
    image(tmp_path / "a.png")
    file = tmp_path / "data" / "annotations.xml"
    file.write_text(file.read_text().replace('name="a.png"', f'name="{name}"'))
    _, faults = read(tmp_path / "data")
    assert len(faults) == 1
    assert name in faults[0]


def test_cvat_for_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "annotations.xml").write_text('<annotations><track id="0" label="a"></track></annotations>')
    with pytest.raises(DataError, match="CVAT for video is not read: export the task as CVAT for images"):
        read(tmp_path)


def metadata(folder: Path, *entries: Any) -> None:
    image(folder / "a.png")
    (folder / "metadata.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.mark.parametrize(("objects", "names", "labels"), [
    ({"bbox": [[1, 2, 3, 4], [5, 6, 7, 8]], "categories": [2, 0]}, ("0", "1", "2"), [2, 0]),
    ({"bbox": [[1, 2, 3, 4], [5, 6, 7, 8]], "category": ["dog", "cat"]}, ("cat", "dog"), [1, 0]),
    ([{"bbox": [1, 2, 3, 4], "label": "dog"}, {"bbox": [5, 6, 7, 8], "label": "cat"}], ("cat", "dog"), [1, 0])])
def test_objects_of_an_image_folder(objects: Any, names: tuple[str, ...], labels: list[int], tmp_path: Path) -> None:
    metadata(tmp_path, {"file_name": "a.png", "objects": objects})
    annotations, faults = read(tmp_path)
    assert annotations.names == names
    assert annotations.labels.tolist() == labels
    np.testing.assert_array_equal(annotations.boxes, [[1, 2, 3, 4], [5, 6, 7, 8]])
    assert annotations.images[0].size == (80, 100)
    assert faults == []


def test_numbers_of_an_image_folder_get_names_by_a_list(tmp_path: Path) -> None:
    metadata(tmp_path, {"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": [1]}})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    annotations, _ = read(tmp_path)
    assert annotations.names == ("cat", "dog")
    assert annotations.labels.tolist() == [1]


@pytest.mark.parametrize(("entry", "message"), [
    ({"file_name": "../a.png"}, "expected a file inside the data set"),
    ({"file_name": "absent.png"}, "'absent.png' is not in"),
    ({"file_name": 7}, "expected an object with a file_name"),
    (["a.png"], "expected an object with a file_name"),
    ({"file_name": "a.png", "objects": {"bbox": [[1, 2, 3]], "categories": [0]}}, "bbox"),
    ({"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]]}}, "category_id")])
def test_faults_of_an_image_folder(entry: Any, message: str, tmp_path: Path) -> None:
    metadata(tmp_path, {"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": [0]}}, entry)
    annotations, faults = read(tmp_path)
    assert len(annotations.boxes) == 1
    assert len(faults) == 1
    assert message in faults[0]
    assert "metadata.jsonl:2" in faults[0]
