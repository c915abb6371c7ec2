"""Names as another system spells them: decomposed letters, another case of the suffix, backslashes."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import FileNames
from helpers.layouts import LAYOUTS, Truth, bccd
from helpers.synthetic import box, image_entry, paint


def composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


@pytest.mark.parametrize(("there", "written", "found"), [
    (decomposed("é.jpg"), composed("é.jpg"), decomposed("é.jpg")),
    (composed("é.jpg"), decomposed("é.jpg"), composed("é.jpg")),
    ("0.JPG", "0.jpg", "0.JPG"), ("0.jpg", "0.Jpg", "0.jpg"), ("a/b/0.png", "a\\b\\0.png", "a/b/0.png"),
    (decomposed("ü/é.jpg"), composed("ü/é.JPG"), decomposed("ü/é.jpg")),
    ("0.jpg", "O.jpg", None), ("A.jpg", "a.jpg", None), ("0.jpg", "../data/0.jpg", None), ("0.jpg", "\\0.jpg", None),
    ("0.jpg", "", None), ("0.jpg", "a\0b", None)])
def test_a_file_is_found_by_another_spelling(tmp_path: Path, there: str, written: str, found: str | None) -> None:
    (tmp_path / "data" / there).parent.mkdir(parents=True)
    (tmp_path / "data" / there).touch()
    assert FileNames(tmp_path / "data").find(written) == found


def test_what_could_be_two_files_is_neither(tmp_path: Path) -> None:
    for name in ("0.JPG", "0.Jpg"):
        (tmp_path / name).touch()
    assert FileNames(tmp_path).find("0.jpg") is None
    assert FileNames(tmp_path).find("0.JPG") == "0.JPG"


RESPELT: dict[str, Callable[[str], str]] = {
    "decomposed": decomposed, "composed": composed, "suffix": lambda name: str(Path(name).with_suffix(".JPG"))}


@pytest.mark.parametrize("layout", [
    "COCO", "COCO, Roboflow", "YOLO", "YOLO, lists", "YOLO, side by side", "VOC", "VOC, Roboflow"])
@pytest.mark.parametrize("change", RESPELT)
def test_images_of_another_spelling_keep_their_objects(tmp_path: Path, layout: str, change: str) -> None:
    names, splits = bccd()
    images = []
    for number, truth in enumerate(splits["train"][:4]):
        name = f"é{number}.jpg"
        file = tmp_path / (composed(name) if change == "decomposed" else decomposed(name))
        file.write_bytes(truth.file.read_bytes())
        images.append(Truth(file, truth.size, truth.objects))
    LAYOUTS[layout](tmp_path / "data", names, {"train": images[:2], "val": images[2:]})
    for file in sorted((tmp_path / "data").rglob("*.jpg")):
        file.rename(file.with_name(RESPELT[change](file.name)))
    findings = Findings()
    folder = DataFolder(tmp_path / "data", findings)
    for split, truths in (("train", images[:2]), ("val", images[2:])):
        read = folder.read(split, findings)
        assert len(read.boxes) == sum(len(truth.objects) for truth in truths)
        assert all(read.store.source(image).is_file() for image in read.images)     # type: ignore[union-attr]
    assert {kind for kind, _, _ in findings.groups()} <= {Fault.PATH_ELSEWHERE}


@pytest.mark.parametrize("written", ["images\\x0.png", "x0.PNG", ".\\x0.png"])
def test_coco_names_with_backslashes(tmp_path: Path, written: str) -> None:
    paint(tmp_path / "x0.png", 40, 30)
    (tmp_path / "images").mkdir()
    (tmp_path / "x0.png").rename(tmp_path / "images" / "x0.png")
    (tmp_path / "val.json").write_text(json.dumps({
        "images": [image_entry(1, written, 40, 30)], "categories": [{"id": 1, "name": "cat"}],
        "annotations": [box(1, 1, 1, [2, 3, 20, 10])]}))
    read = DataFolder(tmp_path).read("val", Findings(strict=True))
    assert read.read_image(0).shape == (30, 40, 3)
    assert len(read.boxes) == 1
