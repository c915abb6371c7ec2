"""Single findings of a check, each with several members of its kind."""

import json
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from deformable_detr.check import Limits, check_data, check_splits
from deformable_detr.check.fix import write_fixed
from deformable_detr.check.images import scan_image
from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.kinds import Fault
from deformable_detr.loading.dataset import DetectionDataset
from helpers.layouts import LAYOUTS, Truth
from helpers.planted import HEIGHT, WIDTH, noise
from helpers.synthetic import box, image_entry

BOX = [4.0, 4, 20, 20]


def write(folder: Path, **splits: tuple[Sequence[str], Sequence[int]]) -> Path:
    """COCO files with these names of classes, and one object of each of these class ids, counted from 1."""
    for number, (split, (names, labels)) in enumerate(splits.items()):
        noise(folder / "images" / f"{split}.png", number)
        (folder / f"{split}.json").write_text(json.dumps({
            "images": [image_entry(1, f"{split}.png", WIDTH, HEIGHT)],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
            "annotations": [box(number, 1, label, [4 + number, 4, 20, 20]) for number, label in enumerate(labels)]}))
    return folder


def found(folder: Path, *, fast: bool = True) -> dict[Fault, str]:
    """The first message of each kind."""
    return {kind: str(kept[0]) for kind, _, kept in check_data(folder, fast=fast).findings.groups()}


CLASS_KINDS = {Fault.CLASSES_UNLEARNED, Fault.CLASSES_DIFFER, Fault.CLASSES_ORDER}


@pytest.mark.parametrize(("train", "val", "labels", "kind"), [
    ("abcdefg", "gfedcba", [1], Fault.CLASSES_ORDER), ("abc", "bac", [3], Fault.CLASSES_ORDER),
    ("abcdefg", "abc", [1], Fault.CLASSES_DIFFER), ("abc", "cb", [2], Fault.CLASSES_DIFFER),
    ("abc", "abcd", [1], Fault.CLASSES_DIFFER), ("abc", "abcd", [4], Fault.CLASSES_UNLEARNED),
    ("abc", "xyz", [1], Fault.CLASSES_UNLEARNED), ("abc", "abc", [1], None),
    (["caf\u00e9", "b"], ["cafe\u0301", "b"], [1], None)])
def test_the_classes_of_val_are_compared_with_those_of_train(tmp_path: Path, train: Any, val: Any, labels: list[int],
                                                            kind: Fault | None) -> None:
    folder = write(tmp_path, train=(train, [1, 2]), val=(val, labels))
    assert CLASS_KINDS & set(found(folder)) == ({kind} if kind else set())
    splits = {split: DetectionDataset(folder, split).annotations for split in ("train", "val")}
    if kind is Fault.CLASSES_UNLEARNED:
        with pytest.raises(DataError, match="there are objects of"):
            check_splits(splits, Limits(), Findings(strict=True))
    else:
        check_splits(splits, Limits(), Findings(strict=True))


@pytest.mark.parametrize("name", ["left", "turn right", "Left-Hand", "handRight", "arrow_links", "pied gauche",
                                  "\u5de6\u8f6c", "nach rechts", "mano izquierda",
                                  "\u043d\u0430\u043b\u0435\u0432\u043e"])
def test_names_of_sides(tmp_path: Path, name: str) -> None:
    assert Fault.CLASS_SIDES in found(write(tmp_path, train=([name, "b"], [1]), val=([name, "b"], [1])))


@pytest.mark.parametrize("pair", [("arrow_l", "arrow_r"), ("L", "R"), ("shoe R new", "shoe L new")])
def test_names_that_differ_by_a_letter_for_a_side(tmp_path: Path, pair: tuple[str, str]) -> None:
    assert Fault.CLASS_SIDES in found(write(tmp_path / "both", train=(pair, [1]), val=(pair, [1])))
    alone = (pair[0], "b")
    assert Fault.CLASS_SIDES not in found(write(tmp_path / "alone", train=(alone, [1]), val=(alone, [1])))


@pytest.mark.parametrize("name", ["bright", "leftover", "copyright", "linkage", "L", "\u043b\u0435\u0432"])
def test_names_without_a_side(tmp_path: Path, name: str) -> None:
    assert Fault.CLASS_SIDES not in found(write(tmp_path, train=([name, "b"], [1]), val=([name, "b"], [1])))


@pytest.mark.parametrize(("count", "num_queries", "kinds"), [
    (150, 300, {Fault.OBJECTS_UNCOUNTED}), (101, 100, {Fault.OBJECTS_UNCOUNTED, Fault.OBJECTS_MANY}), (100, 100, set()),
    (60, 50, {Fault.OBJECTS_MANY})])
def test_objects_beyond_what_is_counted(tmp_path: Path, count: int, num_queries: int, kinds: set[Fault]) -> None:
    folder = write(tmp_path, train=("a", [1] * count), val=("a", [1]))
    content = json.loads((folder / "train.json").read_text())
    for number, entry in enumerate(content["annotations"]):
        entry["bbox"] = [number % 10, number // 10, 20, 20]
    (folder / "train.json").write_text(json.dumps(content))
    checkup = check_data(folder, lambda _: Limits(num_queries=num_queries), fast=True)
    assert {kind for kind, _, _ in checkup.findings.groups()} & {Fault.OBJECTS_MANY, Fault.OBJECTS_UNCOUNTED} == kinds


@pytest.mark.parametrize("layout", ["COCO, simple", "YOLO", "VOC", "parquet", "WebDataset"])
def test_a_leak_is_found_without_decoding_and_does_not_stop_a_training(tmp_path: Path, layout: str) -> None:
    if layout == "parquet":
        pytest.importorskip("pyarrow")
    truths = []
    for number in range(4):
        noise(tmp_path / f"{number}.png", number)
        truths.append(Truth(tmp_path / f"{number}.png", (WIDTH, HEIGHT), [(0, (4, 4, 20, 20))]))
    noise(tmp_path / "again" / "other name.png", 1)
    leak = Truth(tmp_path / "again" / "other name.png", (WIDTH, HEIGHT), [(0, (4, 4, 20, 20))])
    LAYOUTS[layout](tmp_path / "data", ["cat"], {"train": truths[:2], "val": [truths[2], leak]})
    assert "other name.png" in found(tmp_path / "data")[Fault.PICTURE_LEAK]
    findings = Findings(strict=True)
    check_splits({split: DetectionDataset(tmp_path / "data", split).annotations for split in ("train", "val")},
                 Limits(), findings)
    assert {kind: count for kind, count, _ in findings.groups()}[Fault.PICTURE_LEAK] == 1
    LAYOUTS[layout](tmp_path / "sound", ["cat"], {"train": truths[:2], "val": truths[2:]})
    assert Fault.PICTURE_LEAK not in found(tmp_path / "sound")


def test_files_of_one_size_are_compared_as_a_whole(tmp_path: Path) -> None:
    """Frames of a still camera may differ only at their edges."""
    folder = write(tmp_path, train=("a", [1]), val=("a", [1]))
    for split in ("train", "val"):
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        pixels[0, 0] = 9 if split == "val" else 0
        PIL.Image.fromarray(pixels).save(folder / "images" / f"{split}.png", "BMP")
    assert Fault.PICTURE_LEAK not in found(folder)


@pytest.mark.parametrize("layout", ["COCO, simple", "parquet", "WebDataset"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (2 * WIDTH, 2 * HEIGHT)])
def test_sizes_of_other_images_are_found_before_a_training(tmp_path: Path, layout: str, size: tuple[int, int]) -> None:
    if layout == "parquet":
        pytest.importorskip("pyarrow")
    truths = []
    for number in range(6):
        noise(tmp_path / f"{number}.png", number)
        truths.append(Truth(tmp_path / f"{number}.png", (WIDTH, HEIGHT), [(0, (4, 4, 20, 20))]))
    truths[2] = Truth(truths[2].file, size, truths[2].objects)
    LAYOUTS[layout](tmp_path / "data", ["cat"], {"train": truths[:4], "val": truths[4:]})
    words = f"expected {size[0]} x {size[1]} pixels, got {WIDTH} x {HEIGHT} in 2.png"
    assert words in found(tmp_path / "data")[Fault.PICTURE_SIZE]
    train = DetectionDataset(tmp_path / "data", "train").annotations
    with pytest.raises(DataError, match=words):
        check_splits({"train": train}, Limits(), Findings(strict=True))


@pytest.mark.parametrize("bbox", [["nan"] * 4, ["inf"] * 4, ["1e300"] * 4])
def test_a_data_set_without_a_class_or_an_object(tmp_path: Path, bbox: list[str]) -> None:
    tags = ("xmin", "ymin", "xmax", "ymax")
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, bbox, strict=True))
    for number in range(3):
        noise(tmp_path / "data" / "JPEGImages" / f"{number}.png", number)
        (tmp_path / "data" / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "data" / "Annotations" / f"{number}.xml").write_text(
            f"<annotation><object><name>a\x1bb</name><bndbox>{corners}</bndbox></object>"
            f"<object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>".replace("\x1b", "\u0085"))
    checkup = check_data(tmp_path / "data")
    assert {Fault.ENTRY, Fault.NO_OBJECTS} <= {kind for kind, _, _ in checkup.findings.groups()}
    write_fixed(checkup, tmp_path / "out")
    assert (tmp_path / "out").is_dir()


def pages(file: Path, form: str) -> None:
    frames = [PIL.Image.fromarray(np.full((HEIGHT, WIDTH), value, np.uint8)) for value in (0, 99, 200)]
    frames[0].save(file, form, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("form", ["TIFF", "GIF", "PNG", "WEBP"])
def test_further_pages_and_frames_are_counted(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path, train=("a", [1]), val=("a", [1]))
    pages(folder / "images" / "train.png", form)
    assert "the first of 3 is read" in found(folder, fast=False)[Fault.PICTURE_FRAMES]


@pytest.mark.parametrize(("most", "is_dark"), [(255, True), (4095, True), (65535, False), (0, False)])
def test_deep_images_that_turn_out_nearly_black(tmp_path: Path, most: int, is_dark: bool) -> None:
    folder = write(tmp_path, train=("a", [1]), val=("a", [1]))
    PIL.Image.fromarray(np.linspace(0, most, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)).save(
        folder / "images" / "train.png")
    assert (Fault.PICTURE_DARK in found(folder, fast=False)) == is_dark


def test_reading_in_threads_changes_no_warning_filter(tmp_path: Path) -> None:
    noise(tmp_path / "a.png", 1)
    with warnings.catch_warnings():
        before = list(warnings.filters)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(scan_image, [tmp_path / "a.png"] * 60))
        assert warnings.filters == before


@pytest.mark.parametrize("others", [[], [[5, 5, 0, 9]], [[50, 50, -9, -9], [200, 5, 9, 9], [5, 5, 9, 0]]])
def test_how_many_objects_count_as_missed(tmp_path: Path, others: list[list[int]]) -> None:
    folder = write(tmp_path, train=("a", [1]), val=("a", [1]))
    content = json.loads((folder / "val.json").read_text())
    content["annotations"] += [box(10 + number, 1, 1, bbox) for number, bbox in enumerate(others)]
    (folder / "val.json").write_text(json.dumps(content))
    assert DetectionDataset(folder, "val").targets.num_missed == len(others)
    counts = [count for kind, count, _ in check_data(folder, fast=True).findings.groups()
              if "missed in evaluation" in kind.title]
    assert sum(counts) == len(others)
