"""Names of files and folders tell the splits, by the rules of the Hugging Face Hub, or it is said that they do not."""

from pathlib import Path

import pytest

from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.splits import files_by_split
from helpers.layouts import (
    LAYOUTS,
    Truth,
    bccd,
    coco,
    cvat,
    image_folder,
    labelme,
    shards,
    voc,
    yolo,
)


@pytest.mark.parametrize(("names", "expected"), [
    (["train-0.tar", "val0000.tar"], {"train": 1, "val": 1}),
    (["coco-train2017-0.tar", "coco-val2017-0.tar"], {"train": 1, "val": 1}),
    (["train2017/0.tar", "val2017/0.tar"], {"train": 1, "val": 1}),
    (["dev-0.tar", "training-0.tar", "eval-0.tar"], {"val": 1, "train": 1, "test": 1}),
    (["train 0.parquet", "test 0.parquet"], {"train": 1, "test": 1}),
    (["validation[0]-00001.parquet", "train[0]-00001.parquet"], {"val": 1, "train": 1}),
    (["crash-test-train-0.tar", "crash-test-val-0.tar"], {"train": 1, "val": 1}),
    (["test_data/train/0.tar", "test_data/dev/0.tar"], {"train": 1, "val": 1}),
    (["evaluation_1.tar", "Valid.1.tar"], {"test": 1, "val": 1}),
    (["a1/train-0.tar", "a2/train-0.tar"], {"train": 2}), (["train/a/0.tar", "train/b/0.tar"], {"train": 2}),
    (["cells-0.tar", "cells-1.tar"], {"train": 2}), (["2021/0.tar", "2022/0.tar"], {"train": 2}), ([], {})])
def test_names_tell_splits(names: list[str], expected: dict[str, int]) -> None:
    found = files_by_split(Path("data"), names)
    assert {split: len(files) for split, files in found.items()} == expected
    assert sorted(file for files in found.values() for file in files) == sorted(Path("data", name) for name in names)


@pytest.mark.parametrize("names", [
    ["train-0.tar", "holdout-0.tar"], ["full/0.tar", "mini/0.tar"], ["crash-test-train-0.tar"],
    ["train-0.tar", "test-train-0.tar", "val-0.tar"], ["train-0.tar", "minival-0.tar"],
    ["full/train-0.tar", "mini/train-0.tar"], ["full/val/0.tar", "mini/val/0.tar"]])
def test_names_that_do_not_tell_are_refused(names: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        files_by_split(Path("data"), names)
    assert caught.value.finding is not None
    assert caught.value.finding.kind is Fault.SPLIT_UNKNOWN
    assert all(name in str(caught.value) for name in names)


def halves() -> tuple[list[str], dict[str, list[Truth]]]:
    names, splits = bccd()
    return names, {"train": splits["train"][:4], "val": splits["val"][:2]}


CALLED = {"train": "train", "val": "dev"}
YEARS = {"train": "train2017", "val": "val_2017"}
SPLIT = {
    "COCO, dev": coco("annotations/instances_{}.json", "images/{}", CALLED),
    "COCO, version": coco("annotations/instances_{}.json", "images/{}", {"train": "train_v2", "val": "val_v2"}),
    "COCO, Roboflow": coco("{}/_annotations.coco.json", "{}", CALLED),
    "YOLO, dev": yolo("images/{}", CALLED, lambda folder, *_: (folder / "data.yaml").write_text(
        "training: images/train\ndev: images/dev\nnames: [a, b, c]\n")),
    "YOLO, case": yolo("images/{}", CALLED, lambda folder, *_: (folder / "data.yaml").write_text(
        "Train: images/train\nVal: images/dev\nnames: [a, b, c]\n")),
    "YOLO, folders": yolo("images/{}", YEARS, lambda folder, *_: (folder / "classes.txt").write_text("a\nb\nc\n")),
    "VOC, folders": voc("{}", "{}", CALLED), "VOC, years": voc("{}/Annotations", "{}/JPEGImages", YEARS),
    "WebDataset": shards("{}2017/{}.tar")}


@pytest.mark.parametrize("layout", SPLIT)
def test_a_split_of_any_name_is_read(tmp_path: Path, layout: str) -> None:
    names, splits = halves()
    SPLIT[layout](tmp_path, names, splits)
    findings = Findings()
    folder = DataFolder(tmp_path, findings)
    assert set(folder.source.splits) == {"train", "val"}
    assert not folder.is_drawn
    assert [len(folder.read(split, findings).images) for split in folder.splits] == [4, 2]
    assert findings.groups() == []


def voc_lists(folder: Path, **lists: list[str]) -> None:
    names, splits = halves()
    LAYOUTS["VOC"](folder, names, {"train": splits["train"]})
    (folder / "ImageSets/Main/train.txt").unlink()
    for name, members in lists.items():
        (folder / f"ImageSets/Main/{name}.txt").write_text("\n".join(members))


@pytest.mark.parametrize(("lists", "expected"), [
    ({"train": 3, "dev": 1}, {"train": 3, "val": 1}), ({"trainval": 4, "val": 1}, {"train": 3, "val": 1}),
    ({"train": 3, "trainval": 4}, {"train": 3, "val": 1}), ({"trainval": 4, "train": 3, "val": 2},
                                                            {"train": 3, "val": 2}),
    ({"trainval": 3, "test": 1}, {"train": 3, "test": 1})])
def test_lists_of_voc(tmp_path: Path, lists: dict[str, int], expected: dict[str, int]) -> None:
    members = [truth.file.stem for truth in halves()[1]["train"]]
    voc_lists(tmp_path, **{name: members[-count:] if name in ("val", "dev", "test") else members[:count]
                           for name, count in lists.items()}, cat_val=["1  1"])
    findings = Findings()
    folder = DataFolder(tmp_path, findings)
    assert {split: len(folder.source.read(split, findings).images) for split in folder.source.splits} == expected
    assert findings.groups() == []


def test_what_is_left_aside_is_reported(tmp_path: Path) -> None:
    names, splits = halves()
    coco("annotations/instances_{}.json", "images/{}", {"train": "train", "val": "minival"})(
        tmp_path / "coco", names, splits)
    write = yolo("images/{}", {"train": "train", "val": "holdout"}, None)
    write(tmp_path / "yolo", names, splits)
    (tmp_path / "yolo" / "classes.txt").write_text("a\nb\nc\n")
    yolo("images/{}", CALLED, lambda folder, *_: (folder / "data.yaml").write_text(
        "train: images/train\nnames: [a, b, c]\n"))(tmp_path / "yaml", names, splits)
    voc_lists(tmp_path / "voc", train=["BloodImage_00020"], holdout=["BloodImage_00020"])
    for name, left in (("coco", "annotations/instances_minival.json"), ("yolo", "images/holdout"),
                       ("yaml", "images/dev"), ("voc", "ImageSets/Main/holdout.txt")):
        findings = Findings()
        assert DataFolder(tmp_path / name, findings).source.splits == ("train",)
        [(kind, count, [found])] = findings.groups()
        assert (kind, count, found.place.file) == (Fault.OTHER_ANNOTATIONS, 1, tmp_path / name / left)


HOLDOUT = {"train": "train", "val": "holdout"}
FOLDERS = {"VOC": voc("{}", "{}", HOLDOUT), "VOC, folders in folders": voc("{}/Annotations", "{}/JPEGImages", HOLDOUT),
           "LabelMe": labelme(HOLDOUT), "CVAT": cvat(HOLDOUT), "imagefolder": image_folder(HOLDOUT),
           "COCO, Roboflow": coco("{}/_annotations.coco.json", "{}", HOLDOUT),
           "YOLO, Roboflow": yolo("{}/images", HOLDOUT, lambda folder, *_: (folder / "data.yaml").write_text(
               "train: train/images\nnames: [a, b, c]\n")),
           "YOLO, key": yolo("{}/images", HOLDOUT, lambda folder, *_: (folder / "data.yaml").write_text(
               "train: train/images\nholdout: holdout/images\nnames: [a, b, c]\n"))}


@pytest.mark.parametrize("layout", FOLDERS)
def test_a_folder_that_is_no_split_is_reported(tmp_path: Path, layout: str) -> None:
    FOLDERS[layout](tmp_path, *halves())
    findings = Findings()
    folder = DataFolder(tmp_path, findings)
    assert (folder.source.splits, folder.is_drawn) == (("train",), True)
    [(kind, count, [found])] = findings.groups()
    assert (kind, count, found.place.file.relative_to(tmp_path).parts[0]) == (Fault.OTHER_ANNOTATIONS, 1, "holdout")


@pytest.mark.parametrize("layout", ["VOC", "LabelMe", "CVAT", "imagefolder"])
def test_what_lies_beside_the_folders_of_splits_is_reported(tmp_path: Path, layout: str) -> None:
    names, splits = halves()
    called = {"train": "train", "val": "."}
    {"VOC": voc("{}", "{}", called), "LabelMe": labelme(called), "CVAT": cvat(called),
     "imagefolder": image_folder(called)}[layout](tmp_path, names, splits)
    findings = Findings()
    assert DataFolder(tmp_path, findings).source.splits == ("train",)
    assert [kind for kind, _, _ in findings.groups()] == [Fault.OTHER_ANNOTATIONS]


@pytest.mark.parametrize("keys", [("val", "valid"), ("validation", "dev")])
def test_of_two_names_of_a_split_the_first_is_read(tmp_path: Path, keys: tuple[str, str]) -> None:
    names, splits = halves()
    yolo("images/{}", CALLED, lambda folder, *_: (folder / "data.yaml").write_text(
        f"train: images/train\n{keys[1]}: images/train\n{keys[0]}: images/dev\nnames: [a, b, c]\n"))(
            tmp_path, names, splits)
    findings = Findings()
    assert len(DataFolder(tmp_path, findings).read("val", findings).images) == 2
    assert [kind for kind, _, _ in findings.groups()] == [Fault.OTHER_ANNOTATIONS]
