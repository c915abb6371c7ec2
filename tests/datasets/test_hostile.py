"""What a hostile data set may hold: it is refused by name, quickly, and nothing outside of the folder is read."""

import os
import re
from pathlib import Path

import pytest
import yaml

from deformable_detr.datasets.findings import DataError, EntryError, Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.formats import parquet_file
from deformable_detr.datasets.layout import Fence
from deformable_detr.documents import MAX_BYTES, DocumentError, read_json_lists, read_lines, read_xml, read_yaml
from helpers.layouts import LAYOUTS, bccd

BOMBS = {
    "entities": (read_xml, b'<!DOCTYPE a [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><a>&b;</a>', "document type"),
    "external": (read_xml, b'<!DOCTYPE a SYSTEM "file:///etc/hostname"><a/>', "document type"),
    "undefined": (read_xml, b"<a>&b;</a>", "undefined entity"),
    "nested XML": (read_xml, b"<a>" * 100_000, "nested too deeply"),
    "long XML": (read_xml, b"<a>" + b" " * MAX_BYTES + b"</a>", "more than 16,777,216 bytes"),
    "encoding": (read_xml, b'<?xml version="1.0" encoding="cp-0"?><a/>', "unknown encoding"),
    "aliases": (read_yaml, b"a: &a [1, 1]\nb: &b [*a, *a]\n", "aliases are refused"),
    "nested YAML": (read_yaml, b"[" * 100_000, "nested too deeply"),
    "long YAML": (read_yaml, b"#" * 2_000_000, "more than 1,048,576 bytes"),
    "nested JSON": (read_json_lists, b"[" * 100_000, "nested too deeply"),
    "long number": (read_json_lists, b"9" * 100_000, "not valid JSON"),
    "long text": (read_lines, b"0 " * MAX_BYTES, "more than 16,777,216 bytes"),
    "bytes": (read_lines, b"\xff\xfe\x00", "not UTF-8"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_documents(tmp_path: Path, name: str) -> None:
    read, content, words = BOMBS[name]
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DocumentError, match=words):
        read(tmp_path / "file")


def test_xml_of_very_many_elements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deformable_detr.documents.MAX_XML_ELEMENTS", 100)
    (tmp_path / "a.xml").write_text("<a>" + "<b/>" * 100 + "</a>")
    with pytest.raises(DocumentError, match="more than 100 elements"):
        read_xml(tmp_path / "a.xml")


def test_xml_with_text_between_very_many_elements(tmp_path: Path) -> None:
    # Would take half a minute, were a text copied for each that follows it.
    (tmp_path / "a.xml").write_text(f"<a>{('x' * 200 + '<b>y</b>') * 60_000}</a>")
    root = read_xml(tmp_path / "a.xml")
    assert (root.name, root.text, len(root.children), root.text_of("b")) == ("a", "x" * 12_000_000, 60_000, "y")


def test_yaml_builds_nothing_but_texts(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text('a: !!python/object/apply:os.system ["true"]\nb: 2001-01-01\n')
    assert read_yaml(tmp_path / "data.yaml") == {"a": ["true"], "b": "2001-01-01"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DocumentError, match="not a regular file"):
        read_lines(tmp_path / "pipe")


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A sound data set, for the tests to spoil."""
    names, splits = bccd()
    LAYOUTS["YOLO, lists"](tmp_path / "data", names, {split: truths[:3] for split, truths in splits.items()})
    return tmp_path / "data"


def refusal(folder: Path, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        DataFolder(folder).read(split, Findings(strict=True))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_list_cannot_name_images_outside(yolo: Path) -> None:
    outside = yolo.parent / "outside.jpg"
    outside.write_bytes(next((yolo / "images" / "train").iterdir()).read_bytes())
    for line in ("../outside.jpg", str(outside), "images/../../outside.jpg", "file:///etc/hostname", "x" * 5000,
                 "\x1b[2J"):
        (yolo / "train.txt").write_text(line + "\n")
        assert re.search(r"train\.txt:1: .* is not in ", refusal(yolo))


def test_a_list_that_is_a_link_to_something_else_is_not_read(yolo: Path) -> None:
    (yolo.parent / "secret").write_text("password\n")
    (yolo / "train.txt").unlink()
    (yolo / "train.txt").symlink_to(yolo.parent / "secret")
    assert "train.txt: expected a file inside" in refusal(yolo)
    assert "password" not in refusal(yolo)


def test_images_that_are_links_to_something_else(yolo: Path) -> None:
    image = sorted((yolo / "images" / "train").iterdir())[0]
    image.rename(yolo.parent / "outside.jpg")
    image.symlink_to(yolo.parent / "outside.jpg")
    assert "train.txt:1: expected a file inside" in refusal(yolo)
    (yolo / "data.yaml").write_text((yolo / "data.yaml").read_text().replace("train.txt", "images/train"))
    assert f"{image}: expected a file inside" in refusal(yolo)


def test_names_with_line_breaks_are_refused_in_one_line(yolo: Path) -> None:
    (yolo / "data.yaml").write_text((yolo / "data.yaml").read_text().replace("train.txt", "images/train"))
    image = sorted((yolo / "images" / "train").iterdir())[0]
    image.rename(image.with_name("a\nb.jpg"))
    assert r"a\nb.jpg: file_name: expected no control characters, got 'a\nb.jpg'" in refusal(yolo)


@pytest.mark.parametrize("names", ["[a, b, a]", "[a, '']", "[a, [b]]", '["a\\nb", c]', "{a: b}", "{-1: b}", "", "{}",
                                   "3"])
def test_names_that_are_none(yolo: Path, names: str) -> None:
    before = (yolo / "data.yaml").read_text().partition("names:")[0]
    (yolo / "data.yaml").write_text(f"{before}names: {names}\n")
    assert "data.yaml: " in refusal(yolo)


@pytest.mark.parametrize("place", ["../..", ".."])
def test_places_outside_are_looked_for_inside(yolo: Path, place: str) -> None:
    (yolo / "data.yaml").write_text((yolo / "data.yaml").read_text().replace("train: train.txt", f"train: {place!r}"))
    annotations = DataFolder(yolo).read("train", Findings(strict=True))
    assert {image.file_name.split("/")[0] for image in annotations.images} == {"images"}


@pytest.mark.parametrize("place", ["/", "/etc", "C:\\", "images/absent", "\0", "3", "x" * 5000])
def test_places_that_are_not_inside(yolo: Path, place: str) -> None:
    settings = yaml.safe_load((yolo / "data.yaml").read_text())
    (yolo / "data.yaml").write_text(yaml.safe_dump({**settings, "train": place}))
    assert "data.yaml" in refusal(yolo)


@pytest.mark.parametrize("place", [{"path": "images/train"}, [["images/train"]], ["images/train", {"a": "b"}]])
def test_places_that_are_no_paths(yolo: Path, place: object) -> None:
    settings = yaml.safe_load((yolo / "data.yaml").read_text())
    (yolo / "data.yaml").write_text(yaml.safe_dump({**settings, "train": place}))
    assert refusal(yolo) == f"{yolo / 'data.yaml'}: train: expected a path or a list of paths, got {place}"


@pytest.fixture
def darknet(tmp_path: Path) -> Path:
    """The same as CVAT's export for Darknet."""
    names, splits = bccd()
    LAYOUTS["YOLO, CVAT"](tmp_path / "data", names, {split: truths[:3] for split, truths in splits.items()})
    return tmp_path / "data"


def test_a_darknet_list_cannot_name_images_outside(darknet: Path) -> None:
    image = sorted((darknet / "obj_train_data").glob("*.jpg"))[0]
    (darknet.parent / "outside.jpg").write_bytes(image.read_bytes())
    (darknet / "link.jpg").symlink_to(darknet.parent / "outside.jpg")
    (darknet / "a\x07b.jpg").write_bytes(image.read_bytes())
    for line in ("../outside.jpg", str(darknet.parent / "outside.jpg"), "data/../../outside.jpg", "x" * 5000, "\0"):
        (darknet / "train.txt").write_text(line + "\n")
        assert re.search(r"train\.txt:1: .* is not in ", refusal(darknet))
    (darknet / "train.txt").write_text("data/link.jpg\n")
    assert "train.txt:1: expected a file inside" in refusal(darknet)
    (darknet / "train.txt").write_text("data/a\x07b.jpg\n")
    assert r"train.txt:1: file_name: expected no control characters, got 'a\x07b.jpg'" in refusal(darknet)


@pytest.mark.parametrize(("line", "words"), [
    ("names = ../secret", "obj.data: names: expected a file with the name of a class on each line"),
    ("names = data", "obj.data: names: expected a file with the name of a class on each line"),
    ("names =", "obj.data: names: expected a file with the name of a class on each line"),
    ("names = linked.names", "linked.names: expected a file inside"),
    ("names = empty.names", "empty.names: expected the name of a class on each line, got none"),
    ("names = obj.names\ntrain = gone.txt", "obj.data: train: expected a folder of images or a list of them"),
    ("names = obj.names\ntrain =", "obj.data: expected a list of images, as in `train = train.txt`, got none")])
def test_darknet_settings_that_cannot_be_used(darknet: Path, line: str, words: str) -> None:
    (darknet.parent / "secret").write_text("password\n")
    (darknet / "linked.names").symlink_to(darknet.parent / "secret")
    (darknet / "empty.names").touch()
    train = "" if "train" in line else "train = data/train.txt\n"
    (darknet / "obj.data").write_text(train + line + "\n")
    assert words in refusal(darknet)
    assert "password" not in refusal(darknet)


@pytest.mark.parametrize("layout", ["parquet", "parquet, structs"])
def test_a_parquet_row_of_very_many_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    pytest.importorskip("pyarrow")
    LAYOUTS[layout](tmp_path, *bccd())
    monkeypatch.setattr(parquet_file, "LARGEST_ROW", 50)
    with pytest.raises(DataError, match=r"^\S+\.parquet: row group \d: a row of \d+ values, expected at most 50$"):
        DataFolder(tmp_path).read("train", Findings())


def test_a_parquet_file_that_grows_out_of_proportion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow")
    LAYOUTS["parquet, structs"](tmp_path, *bccd())
    monkeypatch.setattr(parquet_file, "LARGEST_GROUP", 10_000_000)
    assert DataFolder(tmp_path).read("train", Findings()).images
    file = next((tmp_path / "default").glob("train/*.parquet"))
    whole = arrow.parquet.read_table(file)
    images = arrow.array([{"bytes": bytes(20_000_000), "path": "a"}] * len(whole), whole.schema.field("image").type)
    table = whole.set_column(whole.schema.get_field_index("image"), whole.schema.field("image"), images)
    arrow.parquet.write_table(table, file, compression="zstd")
    with pytest.raises(DataError, match=r"^\S+\.parquet: row group 0: [\d,]+ bytes would become [\d,]+; expected at m"):
        DataFolder(tmp_path).read("train", Findings())


def test_large_parquet_rows_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    LAYOUTS["parquet, structs"](tmp_path, *bccd())
    whole = DataFolder(tmp_path).read("train", Findings()).images
    rows: list[int] = []
    monkeypatch.setattr(parquet_file, "BATCH_BYTES", 1000)
    monkeypatch.setattr(parquet_file, "_num_values", lambda array: rows.append(len(array)) or 0)
    assert list(DataFolder(tmp_path).read("train", Findings()).images) == list(whole)
    assert set(rows) == {1}


def test_a_fence_answers_without_raising_and_raises_only_when_checked(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in (data / "a.jpg", tmp_path / "outside.jpg"):
        file.touch()
    (data / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (data / "circle.jpg").symlink_to("circle.jpg")
    fence = Fence(data)
    assert [name for name in ("a.jpg", "link.jpg", "circle.jpg", "gone.jpg", "x" * 5000, "\0") if
            fence.holds(data / name)] == ["a.jpg"]
    with pytest.raises(EntryError, match=r"got a link to .*outside\.jpg"):
        fence.check(data / "link.jpg")
    for name in ("a.jpg", "circle.jpg", "gone.jpg", "x" * 5000, "\0"):
        fence.check(data / name)


@pytest.mark.parametrize(("name", "words"), [("", "expected a text"), ("c\nat", "no control characters"),
                                             ("\ud800", "expected a text")])
@pytest.mark.parametrize("layout", ["COCO", "YOLO", "parquet", "WebDataset"])
def test_every_format_refuses_the_same_names_of_classes(tmp_path: Path, layout: str, name: str, words: str) -> None:
    if layout == "parquet":
        pytest.importorskip("pyarrow")
    splits = {split: truths[:2] for split, truths in bccd()[1].items()}
    if name == "\ud800" and layout in ("YOLO", "parquet"):
        pytest.skip("neither YAML nor Arrow can spell it")
    LAYOUTS[layout](tmp_path, [name, "b", "c"], splits)
    assert re.search(f"name: .*{words}", refusal(tmp_path))
