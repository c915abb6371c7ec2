"""The same images, as every tool and service would write them, are the same targets."""

import importlib.util
import json
import logging
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from deformable_detr.boxes import xyxy_to_cxcywh
from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.images import EXIF_ORIENTATION, read_image
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.loader import build_loader
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from helpers.layouts import LAYOUTS, UNSPLIT, bccd

PLAIN = eval_transform(Preprocessing(size=120, max_size=160))    # leaves the images at their size


def skip_without_pyarrow(layout: str) -> None:
    if layout.startswith("parquet") and not importlib.util.find_spec("pyarrow"):
        pytest.skip("pyarrow, an extra, is not installed")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_targets(tmp_path: Path, layout: str) -> None:
    skip_without_pyarrow(layout)
    names, splits = bccd()
    LAYOUTS[layout](tmp_path, names, splits)
    assert sum(map(len, splits.values())) == 60
    folder = DataFolder(tmp_path)
    for split, truths in splits.items():
        dataset = DetectionDataset(folder, split, PLAIN)
        assert dataset.names == tuple(names)
        assert [image.file_name.split("/")[-1] for image in dataset.annotations.images] == [
            truth.file.name for truth in truths]
        for index, truth in enumerate(truths):
            labels = torch.tensor([label for label, _ in truth.objects])
            xywh = torch.tensor([box for _, box in truth.objects])
            boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
            prepared, target, _ = dataset[index]
            torch.testing.assert_close(target.labels, labels, rtol=0, atol=0)
            torch.testing.assert_close(target.boxes, xyxy_to_cxcywh(boxes) / torch.tensor([160, 120] * 2), rtol=0,
                                       atol=0)
            assert prepared.shape == (3, 120, 160)
        np.testing.assert_array_equal(dataset.image(0), read_image(truths[0].file))


@pytest.mark.parametrize("layout", UNSPLIT)
def test_without_splits_a_fifth_is_drawn_for_val(tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture) -> None:
    skip_without_pyarrow(layout)
    names, splits = bccd()
    UNSPLIT[layout](tmp_path, names, {"train": splits["train"]})
    with caplog.at_level(logging.INFO, "deformable_detr"):
        folder = DataFolder(tmp_path)
        parts = {split: DetectionDataset(folder, split, PLAIN) for split in folder.splits}
    assert list(parts) == ["train", "val"]
    files = {split: [image.file_name.split("/")[-1] for image in part.annotations.images]
             for split, part in parts.items()}
    assert 3 <= len(files["val"]) <= 12
    assert sorted(files["train"] + files["val"]) == [truth.file.name for truth in splits["train"]]
    assert [record.getMessage() for record in caplog.records] == [
        (f"{tmp_path}: no split val: of 36 images {len(files['val'])} are drawn for it by their names, "
         f"{len(files['train'])} are left to train on")]
    objects = {truth.file.name: len(truth.objects) for truth in splits["train"]}
    for split, part in parts.items():
        assert [len(part[index].target.labels) for index in range(len(part))] == [
            objects[file] for file in files[split]]


@pytest.mark.parametrize("layout", ["COCO, FiftyOne", "YOLO, Label Studio", "VOC", "WebDataset"])
def test_a_further_image_moves_no_other_between_the_drawn_splits(tmp_path: Path, layout: str) -> None:
    names, splits = bccd()
    sides: dict[str, str] = {}
    for count in (36, 35, 20, 8):
        UNSPLIT[layout](tmp_path / str(count), names, {"train": splits["train"][-count:]})
        folder = DataFolder(tmp_path / str(count))
        for split in folder.splits:
            for image in folder.read(split, Findings()).images:
                assert sides.setdefault(image.file_name, split) == split
    assert len(sides) == 36


@pytest.mark.parametrize("spelt", ["{}", "./{}"])
def test_an_image_that_is_listed_twice_is_drawn_once(tmp_path: Path, spelt: str) -> None:
    names, splits = bccd()
    UNSPLIT["COCO, FiftyOne"](tmp_path, names, {"train": splits["train"]})
    content = json.loads((tmp_path / "labels.json").read_text())
    content["images"] += [{**image, "id": 100 + image["id"], "file_name": spelt.format(image["file_name"])}
                          for image in content["images"]]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    folder = DataFolder(tmp_path)
    train, val = ({Path(name) for name in folder.read(split, Findings()).images.file_names()}
                  for split in ("train", "val"))
    assert not train & val
    assert len(train | val) == 36


def test_only_train_and_test_leave_test_alone(tmp_path: Path) -> None:
    names, splits = bccd()
    del splits["val"]
    LAYOUTS["VOC, Roboflow"](tmp_path, names, splits)
    folder = DataFolder(tmp_path)
    assert folder.splits == ("train", "val", "test")
    sizes = [len(DetectionDataset(folder, split, PLAIN)) for split in folder.splits]
    assert (sizes[0] + sizes[1], sizes[2]) == (36, 12)


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    names, splits = bccd()
    LAYOUTS["YOLO"](tmp_path, names, {"train": splits["train"][:1]})
    with pytest.raises(DataError, match="no split 'val', and train has too few images to draw one from: 1"):
        DetectionDataset(tmp_path, "val", PLAIN)


def test_classes_txt_orders_the_classes_of_voc(tmp_path: Path) -> None:
    names, splits = bccd()
    LAYOUTS["VOC"](tmp_path, names, splits)
    (tmp_path / "classes.txt").write_text("WBC\nRBC\nunused\nPlatelets\n")
    assert DetectionDataset(tmp_path, "val", PLAIN).names == ("WBC", "RBC", "unused", "Platelets")
    (tmp_path / "classes.txt").write_text("WBC\nRBC\n")
    with pytest.raises(DataError, match=r"\.xml:\d+: name: expected one of \('WBC', 'RBC'\), got 'Platelets'"):
        DetectionDataset(tmp_path, "val", PLAIN)


def test_outlines_are_boxes_around_them(tmp_path: Path) -> None:
    names, splits = bccd()
    LAYOUTS["YOLO"](tmp_path, names, splits)
    label = next((tmp_path / "labels" / "val").iterdir())
    label.write_text("1 0.5 0.25 0.75 0.5 0.625 1\n")
    annotations = DetectionDataset(tmp_path, "val", PLAIN).annotations
    index = [image.file_name for image in annotations.images].index(f"images/val/{label.stem}.jpg")
    np.testing.assert_array_equal(annotations.boxes[annotations.image_index == index], [[80, 30, 40, 90]])


def test_a_turned_image_has_the_size_that_a_viewer_shows(tmp_path: Path) -> None:
    names, splits = bccd()
    LAYOUTS["YOLO"](tmp_path, names, splits)
    exif = PIL.Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    file = sorted((tmp_path / "images" / "val").iterdir())[0]
    PIL.Image.open(file).save(file, exif=exif)
    dataset = DetectionDataset(tmp_path, "val", PLAIN)
    assert dataset.annotations.images[0].size == (160, 120)
    assert dataset.image(0).shape == (160, 120, 3)


def test_names_are_texts_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    _, splits = bccd()
    LAYOUTS["YOLO"](tmp_path, ["a"], splits)
    settings = (tmp_path / "data.yaml").read_text().partition("names:")[0]
    (tmp_path / "data.yaml").write_text(f"{settings}names: [no, 2.50, on]\n")
    assert DetectionDataset(tmp_path, "val", PLAIN).names == ("no", "2.50", "on")


@pytest.mark.parametrize("settings", ["train: {lr: 1}", "nc: 3\nbackbone: []", "names: [run 1]"])
@pytest.mark.parametrize("layout", ["VOC", "WebDataset"])
def test_settings_of_something_else_are_left_alone(tmp_path: Path, layout: str, settings: str,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    LAYOUTS[layout](tmp_path, *bccd())
    (tmp_path / "config.yaml").write_text(settings)
    assert DataFolder(tmp_path).source.format == layout
    assert not caplog.text


def test_settings_may_have_any_name(tmp_path: Path) -> None:
    names, splits = bccd()
    LAYOUTS["YOLO, lists"](tmp_path, names, splits)
    (tmp_path / "data.yaml").rename(tmp_path / "cells.yml")
    (tmp_path / "a.yaml").write_text("train: {lr: 1}")
    assert DetectionDataset(tmp_path, "val", PLAIN).names == tuple(names)


def test_the_number_of_classes_that_darknet_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    LAYOUTS["YOLO, CVAT"](tmp_path, *bccd())
    DetectionDataset(tmp_path, "val", PLAIN)
    assert not caplog.text
    settings = (tmp_path / "obj.data").read_text()
    (tmp_path / "obj.data").write_text(settings.replace("classes = 3", "classes = 80"))
    DetectionDataset(tmp_path, "val", PLAIN)
    assert "obj.data: classes: expected 3, the number of names, got '80'" in caplog.text


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"train.parquet: reading it needs pyarrow: pip install 'deformable-detr\[parq"):
        DetectionDataset(tmp_path, "train", PLAIN)


def test_workers_read_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    LAYOUTS["parquet, structs"](tmp_path, *bccd())
    dataset = DetectionDataset(tmp_path, "val", PLAIN)
    alone, helped = (list(build_loader(dataset, 4, training=False, num_workers=count)) for count in (0, 1))
    for (batch, _), (other, _) in zip(alone, helped, strict=True):
        assert torch.equal(batch.images, other.images)


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_no_parquet(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"train.parquet: cannot be read: "):
        DetectionDataset(tmp_path, "train", PLAIN)


def test_a_folder_without_a_data_set_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("nothing")
    words = r"no data set found. Expected COCO: .*; YOLO: .*; VOC: .*; parquet: .*; WebDataset: .* Got notes.md$"
    with pytest.raises(DataError, match=words):
        DataFolder(tmp_path)


def test_of_two_formats_one_is_read_and_the_other_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names, splits = bccd()
    LAYOUTS["YOLO"](tmp_path, names, splits)
    LAYOUTS["COCO, CVAT"](tmp_path, names, splits)
    folder = DataFolder(tmp_path)
    assert folder.source.format == "COCO"
    for split in folder.splits:
        DetectionDataset(folder, split, PLAIN)
    assert caplog.text.count("COCO is read, YOLO is there too") == 1
