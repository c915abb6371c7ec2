"""Detections in the forms of other libraries, and back."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from deformable_detr import Detections

pytestmark = pytest.mark.filterwarnings("ignore:OpenCV")


@pytest.fixture
def found() -> Detections:
    return Detections(np.array([[10.25, 20, 30, 60], [0, 0, 200, 100]], np.float32), np.array([0.9, 0.25], np.float32),
                      np.array([2, 0]), ["猫", "a"], (100, 200))


def test_coco_has_the_ids_of_the_annotations(found: Detections) -> None:
    first, second = found.to_coco(7, (1, 17, 90))
    assert first == {"image_id": 7, "category_id": 90, "bbox": [10.25, 20, 19.75, 40], "score": 0.9}
    assert second == {"image_id": 7, "category_id": 1, "bbox": [0, 0, 200, 100], "score": 0.25}
    assert [each["category_id"] for each in found.to_coco(7)] == [2, 0]
    known = replace(found, category_ids=(1, 17, 90))
    assert known.to_coco(7) == [first, second]
    assert known[1:].to_coco(7) == [second]
    assert json.loads(json.dumps(known.to_coco("a"))) == known.to_coco("a")


def test_yolo_lines(found: Detections) -> None:
    assert found.to_yolo() == "2 0.100625 0.4 0.09875 0.4 0.89999998\n0 0.5 0.5 1 1 0.25\n"
    assert found.to_yolo(scores=False) == "2 0.100625 0.4 0.09875 0.4\n0 0.5 0.5 1 1\n"
    assert found[:0].to_yolo() == ""


def test_pandas(found: Detections) -> None:
    table = found.to_pandas()
    assert list(table) == ["label", "name", "score", "x0", "y0", "x1", "y1"]
    np.testing.assert_array_equal(table[["x0", "y0", "x1", "y1"]].to_numpy(), found.boxes)
    assert table["name"].tolist() == found.names
    assert table["label"].tolist() == [2, 0]
    assert len(found[:0].to_pandas()) == 0
    assert replace(found, tracks=np.array([4, -1])).to_pandas()["track"].tolist() == [4, -1]


def test_supervision_and_back(found: Detections) -> None:
    tracked = replace(found, tracks=np.array([4, 5]))
    for detections in (found, tracked, found[:0]):
        back = Detections.from_supervision(detections.to_supervision(), detections.image_size)
        for name in ("boxes", "scores", "labels", "tracks"):
            np.testing.assert_array_equal(getattr(back, name), getattr(detections, name))
        assert back.names == detections.names
        assert back.image_size == (100, 200)


def test_what_supervision_does_not_know() -> None:
    import supervision

    bare = supervision.Detections(xyxy=np.array([[1, 2, 3, 4.0]]))
    found = Detections.from_supervision(bare, (10, 10))
    assert (found.scores.tolist(), found.labels.tolist(), found.names) == ([1], [0], ["0"])
    numbered = supervision.Detections(xyxy=bare.xyxy, class_id=np.array([1]), confidence=np.array([0.5]))
    assert Detections.from_supervision(numbered, (10, 10), ["a", "b"]).names == ["b"]
    with pytest.raises(ValueError, match="names: expected one for each class up to 1, got 1"):
        Detections.from_supervision(numbered, (10, 10), ["a"])


@pytest.mark.parametrize(("name", "convert"), [("pandas", Detections.to_pandas),
                                               ("supervision", Detections.to_supervision)])
def test_a_missing_library_is_named(found: Detections, monkeypatch: pytest.MonkeyPatch, name: str,
                                    convert: object) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"this needs {name} .*: pip install 'deformable-detr\[{name}\]'"):
        convert(found)      # type: ignore[operator]


def test_each_class_may_have_its_own_threshold(found: Detections) -> None:
    assert found.above(0.25).names == ["猫", "a"]
    assert found.above(np.array([0.2, 0, 0.95], np.float32)).names == ["a"]
    assert found.above(np.array([np.inf, 0, 0.5], np.float32)).names == ["猫"]
