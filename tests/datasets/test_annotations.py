"""What a COCO annotation file may hold, and what is said about one that holds something else."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.formats.coco import read_coco
from helpers.synthetic import box, image_entry

CONTENT = {
    "images": [image_entry(7, "a.png", 40, 30), image_entry(3, "b.png", 30, 40)],
    "annotations": [box(1, 7, 90, [2, 3.5, 10, 12]), box(2, 3, 5, [0, 0, 30, 40], iscrowd=1, area=7.5)],
    "categories": [{"id": 90, "name": "cat"}, {"id": 5, "name": "dog"}],
}


def read(folder: Path, content: Any) -> Annotations:
    file = folder / "train.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_coco(file, Findings(strict=True))


def spoilt(key: str, **fields: Any) -> dict[str, Any]:
    """The content with fields of the first entry of a list replaced; ... removes one."""
    entry = {name: value for name, value in {**CONTENT[key][0], **fields}.items() if value is not ...}
    return {**CONTENT, key: [entry, *CONTENT[key][1:]]}


def test_everything_is_kept(tmp_path: Path) -> None:
    read_in = read(tmp_path, CONTENT)
    assert read_in.names == ("dog", "cat")
    assert read_in.category_ids == (5, 90)
    assert [p.size for p in read_in.images] == [(30, 40), (40, 30)]
    assert read_in.ids.tolist() == [1, 2]
    assert read_in.image_index.tolist() == [0, 1]
    assert read_in.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(read_in.boxes, [[2, 3.5, 10, 12], [0, 0, 30, 40]])
    assert read_in.areas.tolist() == [120, 7.5]
    assert read_in.crowd.tolist() == [False, True]


def test_optional_fields_and_ids_written_as_text(tmp_path: Path) -> None:
    lean = {"id": 1, "image_id": "7", "category_id": 5, "bbox": [1, 2, 3, 4]}
    read_in = read(tmp_path, {**CONTENT, "annotations": [lean]})
    assert read_in.areas.tolist() == [12]
    assert read_in.crowd.tolist() == [False]


def test_no_annotations_at_all(tmp_path: Path) -> None:
    read_in = read(tmp_path, {**CONTENT, "annotations": []})
    assert read_in.boxes.shape == (0, 4)
    assert read_in.labels.shape == (0,)


@pytest.mark.parametrize(("content", "words"), [
    ("", "not valid JSON"),
    ('{"images": [', "not valid JSON"),
    ("[" * 200_000, "nested too deeply"),
    ("9" * 5000, "not valid JSON"),
    ("[]", "expected an object with the lists images, annotations and categories, got list"),
    ("null", "got NoneType"),
    ({"images": [], "annotations": []}, "got nothing for categories"),
    ({**CONTENT, "annotations": {}}, "got dict for annotations"),
    ({**CONTENT, "categories": []}, "categories: expected at least one"),
    ({**CONTENT, "images": []}, "images: expected at least one"),
    ({**CONTENT, "images": [*CONTENT["images"], 5]}, "images[2]: expected an object, got 5"),
    (spoilt("categories", id=5), "category id 5: expected once"),
    (spoilt("categories", name="dog"), "category name 'dog': expected once"),
    (spoilt("categories", name=3), "category 90: name: expected a text, got 3"),
    (spoilt("categories", name="\ud800"), "category 90: name: expected a text"),
    (spoilt("categories", name="c\nat"), "category 90: name: expected no control characters, got 'c\\nat'"),
    (spoilt("images", id=3), "image id 3: expected once"),
    (spoilt("images", id=...), "images[0]: id: expected a whole number, got nothing"),
    (spoilt("images", id=2**70), "image 1180591620717411303424: id: expected a whole number"),
    (spoilt("images", file_name="a\0.png"), "image 7: file_name: expected a text"),
    (spoilt("images", width="40"), "image 7: width: expected a positive whole number of pixels, got '40'"),
    (spoilt("images", height=0), "image 7: height: expected a positive"),
    (spoilt("images", height=True), "image 7: height: expected a positive"),
    (spoilt("annotations", image_id=8), "annotation 1: image_id: expected the id of a listed image, got 8"),
    (spoilt("annotations", image_id=[7]), "annotation 1: image_id: expected a whole number, got [7]"),
    (spoilt("annotations", category_id=6),
     "annotation 1: category_id: expected one of the category ids [5, 90], got 6"),
    (spoilt("annotations", category_id=None), "annotation 1: category_id: expected a whole number, got None"),
    (spoilt("annotations", bbox=...),
     "annotation 1: bbox: expected four numbers: x, y, width, height, got nothing"),
    (spoilt("annotations", bbox=[1, 2, 3]), "annotation 1: bbox: expected four numbers"),
    (spoilt("annotations", bbox=[1, 2, 3, "4"]), "annotation 1: bbox: expected four numbers"),
    (spoilt("annotations", bbox=[1, 2, 3, float("nan")]), "annotation 1: bbox: expected four numbers"),
    (spoilt("annotations", bbox=[1, 2, 3, float("inf")]), "annotation 1: bbox: expected four numbers"),
    (spoilt("annotations", bbox=[1, 2, 3, 10**400]), "annotation 1: bbox: expected four numbers"),
    (spoilt("annotations", area="big"), "annotation 1: area: expected a number, got 'big'"),
    (spoilt("annotations", iscrowd=2), "annotation 1: iscrowd: expected 0 or 1, got 2"),
])
def test_faults_are_named(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "train.json"))
    assert "\n" not in message
    assert len(message) < 400 + len(str(tmp_path))


def test_broken_encoding(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_bytes(b'{"images": "\xff"}')
    with pytest.raises(DataError, match="not valid JSON"):
        read_coco(tmp_path / "train.json", Findings(strict=True))


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_coco(tmp_path / "train.json", Findings(strict=True))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(sorted(CONTENT)), data=st.data())
def test_any_value_in_any_field_is_read_or_refused(tmp_path: Path, key: str, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(CONTENT[key][0])))
    content = spoilt(key, **{field: data.draw(JSON)})
    with contextlib.suppress(DataError):
        read(tmp_path, content)
