"""What a user points at, and what is in it, is recognised."""

import json
from pathlib import Path

import pytest
import yaml

from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.kinds import Fault
from helpers.layouts import LAYOUTS, Splits, bccd, darknet, voc
from helpers.planted import noise


def few() -> tuple[list[str], Splits]:
    names, splits = bccd()
    return names, {split: truths[:3] for split, truths in splits.items()}


@pytest.mark.parametrize(("layout", "file"), [
    ("YOLO", "data.yaml"), ("YOLO, CVAT", "obj.data"), ("COCO", "annotations/instances_train2017.json"),
    ("COCO, annotations", "annotations/train.json"), ("COCO, simple", "val.json"),
    ("COCO, Roboflow", "valid/_annotations.coco.json")])
def test_a_file_of_a_data_set_stands_for_its_folder(tmp_path: Path, layout: str, file: str) -> None:
    LAYOUTS[layout](tmp_path, *few())
    assert DataFolder(tmp_path / file).source == DataFolder(tmp_path).source


@pytest.mark.parametrize("split", ["valid", "Validation", "dev", "val"])
def test_a_split_has_all_of_its_names(tmp_path: Path, split: str) -> None:
    LAYOUTS["YOLO, Roboflow"](tmp_path, *few())
    assert len(DataFolder(tmp_path).read(split, Findings()).images) == 3


@pytest.mark.parametrize(("files", "words"), [
    ({"project-1.json": '[{"id": 1, "annotations": [{"result": [{"from_name": "label"}]}]}]'}, "Label Studio"),
    ({"project-1.json": '[{"image": "a.jpg", "label": [{"rectanglelabels": ["cat"]}]}]'}, "Label Studio"),
    ({"train/_annotations.createml.json": "[]"}, "CreateML"), ({"data.zip": "PK"}, "the archive 'data.zip': unpack it"),
    ({"via.json": '{"a.jpg1": {"filename": "a.jpg", "regions": []}}'}, "VGG Image Annotator"),
    ({"set/ann/a.jpg.json": '{"objects": []}'}, "Supervisely"), ({"train.tfrecord": ""}, "TFRecords"),
    ({"label_2/0.txt": "Car 0 0 0 1 2 3 4 0 0 0 0 0 0 0"}, "KITTI"),
    ({"train/_annotations.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\n"}, "Roboflow"),
    ({"train/metadata.csv": "file_name,text\na.jpg,cat\n"}, "Hugging Face"),
    ({"train-annotations-bbox.csv": "ImageID,Source,LabelName,Confidence,XMin,XMax\n"}, "Open Images"),
    ({"train/a.jpg": ""}, "images without annotations"), ({}, "an empty folder"), ({"notes.txt": ""}, "notes.txt")])
def test_a_folder_of_another_kind_is_named(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"no data set found. .* Got .*{words}"):
        DataFolder(tmp_path)


@pytest.mark.parametrize("layout", ["VOC", "VOC, Roboflow", "COCO, simple"])
def test_names_alone_make_no_yolo_data_set(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path, *few())
    (tmp_path / "data.yaml").write_text("names: [a, b]\n")
    assert DataFolder(tmp_path).source.format == layout.split(",")[0]


@pytest.mark.parametrize("folders", [{"train": "train", "val": "valid"}, {"train": "."}])
def test_darknet_of_roboflow(tmp_path: Path, folders: dict[str, str]) -> None:
    names, splits = few()
    darknet("{}", "", folders)(tmp_path, names, {split: splits[split] for split in folders})
    for file in ("obj.data", "obj.names", *(f"{folder}.txt" for folder in folders.values())):
        (tmp_path / file).unlink(missing_ok=True)
    for folder in folders.values():
        (tmp_path / folder / "_darknet.labels").write_text("\n".join(names))
    findings = Findings()
    source = DataFolder(tmp_path, findings).source
    for split in folders:
        read = source.read(split, findings)
        assert read.names == tuple(names)
        assert len(read.boxes) == sum(len(truth.objects) for truth in splits[split])
    assert findings.groups() == []


def test_voc_in_sub_folders(tmp_path: Path) -> None:
    names, splits = few()
    for sub in ("one", "two"):
        voc(f"Annotations/{sub}", f"JPEGImages/{sub}", {"train": "train"})(tmp_path, names, {"train": splits["train"]})
    findings = Findings()
    read = DataFolder(tmp_path, findings).source.read("train", findings)
    assert sorted(image.file_name for image in read.images) == sorted(
        f"{sub}/{truth.file.name}" for sub in ("one", "two") for truth in splits["train"])
    assert findings.groups() == []


@pytest.mark.parametrize("line", ["{}", '"{}"', "'{}'"])
def test_voc_names_with_spaces(tmp_path: Path, line: str) -> None:
    LAYOUTS["VOC"](tmp_path, *few())
    (tmp_path / "Annotations/BloodImage_00020.xml").rename(tmp_path / "Annotations/blood image 20.xml")
    (tmp_path / "JPEGImages/BloodImage_00020.jpg").rename(tmp_path / "JPEGImages/blood image 20.jpg")
    (tmp_path / "ImageSets/Main/train.txt").write_text(line.format("blood image 20"))
    read = DataFolder(tmp_path).source.read("train", Findings(strict=True))
    assert [image.file_name for image in read.images] == ["blood image 20.jpg"]


SURROGATE = "\ud83d"


@pytest.mark.parametrize("layout", ["YOLO", "COCO", "WebDataset"])
def test_names_of_classes_are_unicode(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path, *few())
    files = {"YOLO": "data.yaml", "COCO": "annotations/instances_train2017.json", "WebDataset": "classes.json"}
    file = tmp_path / files[layout]
    if layout == "YOLO":
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "names": 0}).replace(
            "names: 0", f"names: {json.dumps(['a', SURROGATE, 'c'])}"))
    else:
        file.write_text(file.read_text().replace('"RBC"', json.dumps(SURROGATE)))
    with pytest.raises(DataError, match="expected a text, got"):
        DataFolder(tmp_path).read("train", Findings(strict=True))


@pytest.mark.parametrize(("layout", "linked"), [
    ("YOLO", "images"), ("YOLO", "labels"), ("COCO, CVAT", "images"), ("VOC", "JPEGImages"), ("VOC", "Annotations")])
def test_where_a_linked_folder_leads_is_reported_once(tmp_path: Path, layout: str, linked: str) -> None:
    LAYOUTS[layout](tmp_path / "data", *few())
    (tmp_path / "data" / linked).rename(tmp_path / "outside")
    (tmp_path / "data" / linked).symlink_to(tmp_path / "outside")
    findings = Findings()
    folder = DataFolder(tmp_path / "data", findings)
    for split in ("train", "val"):
        assert len(folder.read(split, findings).boxes)
    found = {finding.place.file: finding.message for kind, _, kept in findings.groups() for finding in kept
             if kind is Fault.FOLDER_LINKED}
    assert found
    assert all(file.is_relative_to(tmp_path / "data" / linked) for file in found)
    assert all(str(tmp_path / "outside") in message for message in found.values())
    assert sum(count for kind, count, _ in findings.groups() if kind is Fault.FOLDER_LINKED) == len(found)


@pytest.mark.parametrize(("layout", "linked"), [
    ("COCO", "annotations/instances_train2017.json"), ("COCO, simple", "train.json"), ("YOLO", "data.yaml"),
    ("YOLO, CVAT", "obj.data"), ("WebDataset", "classes.json")])
def test_annotation_files_outside_are_refused(tmp_path: Path, layout: str, linked: str) -> None:
    LAYOUTS[layout](tmp_path / "data", *few())
    (tmp_path / "data" / linked).rename(tmp_path / "outside")
    (tmp_path / "data" / linked).symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="got a link to"):
        DataFolder(tmp_path / "data").read("train", Findings(strict=True))


@pytest.mark.parametrize(("layout", "images"), [("YOLO", "images/train"), ("VOC", "JPEGImages")])
def test_images_that_cannot_be_read_here_are_reported(tmp_path: Path, layout: str, images: str) -> None:
    LAYOUTS[layout](tmp_path, *few())
    for name in ("a.HEIC", "b.nef"):
        (tmp_path / images / name).touch()
    noise(tmp_path / images / ".hidden.heic", 1, format="PNG")
    findings = Findings()
    DataFolder(tmp_path, findings).read("train", findings)
    assert {kind: count for kind, count, _ in findings.groups()}[Fault.PICTURE_UNREAD] == 2
