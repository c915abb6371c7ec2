"""Fields of objects that only the evaluation uses, in every format that has them."""

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.kinds import Fault
from deformable_detr.detections import Detections
from deformable_detr.documents import MAX_JSON_BYTES, DocumentError, read_json_lists
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.loading.dataset import DetectionDataset
from helpers.layouts import put
from helpers.synthetic import image_entry, paint

FORMATS = ("COCO", "WebDataset", "parquet")
BOX = [2, 3, 20, 10]


def write(folder: Path, form: str, *objects: dict[str, Any]) -> Path:
    """One image with these objects, by default with a sound box; the split is val."""
    objects = tuple({"bbox": BOX, **fields} for fields in objects)
    (folder / "images").mkdir(parents=True)
    image = folder / "images" / "a.png"
    paint(image, 40, 30)
    if form == "COCO":
        content = {"images": [image_entry(1, "a.png", 40, 30)], "categories": [{"id": 1, "name": "cat"}],
                   "annotations": [{"id": number, "image_id": 1, "category_id": 1, **fields}
                                   for number, fields in enumerate(objects)]}
        (folder / "val.json").write_text(json.dumps(content))
    elif form == "WebDataset":
        (folder / "classes.json").write_text('[{"id": 1, "name": "cat"}]')
        with tarfile.open(folder / "val-0.tar", "w") as shard:
            shard.add(image, "a.png")
            labels = {"annotations": [{"category_id": 1, **entry} for entry in objects]}
            put(shard, "a.json", json.dumps(labels).encode())
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        features = {"objects": {"feature": {"category": {"names": ["cat"], "_type": "ClassLabel"}}}}
        table = pyarrow.Table.from_pylist([{"image": {"bytes": image.read_bytes(), "path": "a.png"},
                                            "objects": [{"category": 0, **entry} for entry in objects]}])
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        parquet.write_table(table, folder / "val.parquet")
    return folder


def read(folder: Path) -> tuple[Annotations, Findings]:
    findings = Findings()
    return DataFolder(folder).read("val", findings), findings


def ap_of_perfect_detections(annotations: Annotations, rows: slice) -> float:
    """As if exactly these objects had been found."""
    boxes = annotations.boxes[rows].copy()
    boxes[:, 2:] += boxes[:, :2]
    evaluator = CocoEvaluator(annotations)
    evaluator.add(annotations.images[0].id, Detections(
        boxes, np.ones(len(boxes), np.float32), annotations.labels[rows], ["cat"] * len(boxes), (30, 40)))
    return evaluator.summarize().AP


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_areas_are_read_from_every_format(tmp_path: Path, form: str) -> None:
    annotations, findings = read(write(tmp_path, form, {"area": 150.5}, {"area": 7.0}, {"area": None}))
    assert annotations.areas.tolist() == [150.5, 7, 200]
    assert not findings.groups()


@pytest.mark.parametrize("area", [-1, -200, 0, 1e15])
@pytest.mark.parametrize("form", FORMATS)
def test_an_impossible_area_is_reported_and_the_boxs_taken(tmp_path: Path, form: str, area: float) -> None:
    annotations, findings = read(write(tmp_path, form, {"area": float(area)}))
    assert annotations.areas.tolist() == [200]
    assert [(kind, count) for kind, count, _ in findings.groups()] == [(Fault.OBJECT_AREA, 1)]
    assert ap_of_perfect_detections(annotations, slice(None)) == 1


@pytest.mark.parametrize("bbox", [[22, 3, -20, 10], [2, 13, 20, -10], [22, 13, -20, -10]])
@pytest.mark.parametrize("form", FORMATS)
def test_a_swapped_box_has_a_positive_area(tmp_path: Path, form: str, bbox: list[float]) -> None:
    annotations, _ = read(write(tmp_path, form, {"bbox": bbox}))
    assert annotations.areas.tolist() == [200]


@pytest.mark.parametrize("form", FORMATS)
def test_an_object_to_be_ignored_is_neither_trained_on_nor_missed(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path, form, {"ignore": 0}, {"ignore": 1, "bbox": [25, 15, 10, 10]})
    annotations, findings = read(folder)
    assert annotations.crowd.tolist() == [False, True]
    assert [(kind, count) for kind, count, _ in findings.groups()] == [(Fault.OBJECT_IGNORED, 1)]
    assert ap_of_perfect_detections(annotations, slice(1)) == ap_of_perfect_detections(annotations, slice(2)) == 1
    assert len(DetectionDataset(folder, "val").truth(0)[1]) == 1


@pytest.mark.parametrize("fields", [{"iscrowd": "1"}, {"iscrowd": "0"}, {"iscrowd": 2}, {"ignore": "yes"},
                                    {"ignore": float("nan")}, {"area": float("nan")}, {"area": "200"}],
                         ids=lambda fields: str(fields))
@pytest.mark.parametrize("form", FORMATS)
def test_other_values_are_refused(tmp_path: Path, form: str, fields: dict[str, Any]) -> None:
    folder = write(tmp_path, form, {}, fields)
    with pytest.raises(DataError, match=f"{next(iter(fields))}: expected "):
        DataFolder(folder).read("val", Findings(strict=True))


def test_a_json_of_200_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for name, size in (("huge.json", 200 * 10**9), ("beyond.json", MAX_JSON_BYTES + 1)):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, size)
        with pytest.raises(DocumentError, match="more than 8,589,934,592 bytes"):
            read_json_lists(tmp_path / name)
