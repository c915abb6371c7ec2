"""The quick way to read COCO's objects says what the careful one says, to the letter."""

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.formats import coco
from deformable_detr.documents import parse_json
from helpers.synthetic import box, image_entry

IMAGES = [image_entry(number, f"{number}.png", 40, 30) for number in range(4)]
CATEGORIES = [{"id": 90, "name": "cat"}, {"id": 5, "name": "dog"}]

# As they stand in a file: `json` itself would write none of some.
NUMBERS = st.one_of(
    st.sampled_from(["0", "-0", "-0.0", "1", "2", "5", "90", "3.5", "1e2", "1E-400", "1e400", "-1e-7", "NaN",
                     "Infinity", "9007199254740993", "9223372036854775807", "9223372036854775808",
                     "-9223372036854775809", "0.1000000000000000055511151231257827021181583404541015625",
                     "1.7976931348623159e308", "01", "1.", "9" * 400, "9" * 5000]),
    st.integers(-2**65, 2**65).map(str), st.floats().map(json.dumps))
OTHERS = st.sampled_from(['"7"', '"1"', '" "', '"\\ud800"', '"\\x"', '"\x01"', '"\xff"', "null", "true", "false", "[]",
                          "{}", "", "[[[1, 2], {}]]", "[1, 2, 3, 4,]", '{"id": 1, "id": "x"}', "tru",
                          "[" * 2000 + "]" * 2000])
BOXES = st.lists(NUMBERS, min_size=3, max_size=5).map(lambda numbers: f"[{', '.join(numbers)}]")
FIELDS = st.sampled_from(["id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "\\u0069d",
                          "note"])
SPOILT = st.lists(st.tuples(FIELDS, NUMBERS | OTHERS | BOXES), max_size=2)


def entry_text(number: int, spoilt: list[tuple[str, str]]) -> str:
    """A sound entry, with fields given once more: the last of a name counts."""
    fields = [(name, json.dumps(value)) for name, value in box(number, number % 4, 90, [1, 2.5, 3, 4]).items()]
    return "{" + ", ".join(f'"{name}": {value}' for name, value in [*fields, *spoilt]) + "}"


def outcome(file: Path, *, careful: bool) -> tuple[Annotations | None, list[str]]:
    """What was read, and what was said: with entries that are all made by `json` at once, nothing is quick."""
    findings = Findings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco, "READ_AT_ONCE", 2)
        if careful:
            patch.setattr(coco, "read_json_lists", lambda file: parse_json(file.read_bytes()))
        try:
            annotations = coco.read_coco(file, findings)
        except DataError as error:
            return None, [str(error)]
    return annotations, [f"{kind.code} {count} {found}" for kind, count, kept in findings.groups() for found in kept]


def same(first: Annotations | None, second: Annotations | None) -> bool:
    if first is None or second is None:
        return first is second
    return (first.images == second.images and first.names == second.names
            and first.category_ids == second.category_ids
            and all(np.array_equal(getattr(first, name), getattr(second, name)) and
                    getattr(first, name).dtype == getattr(second, name).dtype
                    for name in ("ids", "image_index", "labels", "boxes", "areas", "crowd")))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(SPOILT, max_size=5), images=st.sampled_from([IMAGES, [*IMAGES[1:], {"id": 0}], IMAGES[1:]]))
def test_both_ways_agree(tmp_path: Path, entries: list[list[tuple[str, str]]], images: list[Any]) -> None:
    file = tmp_path / "train.json"
    objects = ", ".join(entry_text(number, spoilt) for number, spoilt in enumerate(entries))
    file.write_bytes(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(CATEGORIES)}, '
                     f'"annotations": [{objects}]}}'.encode("latin-1"))
    (quick, said), (careful, said_carefully) = outcome(file, careful=False), outcome(file, careful=True)
    if "9" * 5000 in objects and careful is None:
        return      # `json` refuses to make numbers of thousands of digits; in fields that nobody reads none is made
    assert said == said_carefully
    assert same(quick, careful)


def written(folder: Path, objects: str) -> Path:
    file = folder / "train.json"
    file.write_text(f'{{"images": {json.dumps(IMAGES)}, "categories": {json.dumps(CATEGORIES)}, '
                    f'"annotations": [{objects}]}}')
    return file


@pytest.mark.parametrize("spoilt", [
    [], [("segmentation", '{"counts": "aé", "size": [30, 40]}')], [("area", "null")], [("iscrowd", "1")],
    [("iscrowd", "true")], [("bbox", "[1, 2, 3.25, 4e0]")], [("note", '"\\u0061"')],
    [("image_id", "2"), ("image_id", "3")]])
def test_sound_entries_are_read_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        spoilt: list[tuple[str, str]]) -> None:
    monkeypatch.delattr(coco, "read_object_entry")    # which the careful way calls
    assert len(coco.read_coco(written(tmp_path, entry_text(1, spoilt)), Findings(strict=True)).ids) == 1


def test_one_fault_is_found_among_many_without_making_all_of_them(tmp_path: Path) -> None:
    outline = [("segmentation", json.dumps([[number / 7 for number in range(30)]]))]
    texts = [entry_text(number, outline + [("area", '"wide"')] * (number == 12_345)) for number in range(20_000)]
    file, findings = written(tmp_path, ",\n".join(texts)), Findings()
    tracemalloc.start()
    annotations = coco.read_coco(file, findings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert annotations.ids.tolist() == [number for number in range(20_000) if number != 12_345]
    assert [str(kept[0]) for _, _, kept in findings.groups()] == [
        f"{file}: annotation 12345: area: expected a number, got 'wide'"]
    assert peak < 3 * file.stat().st_size       # of what Python's objects would take ten times


def test_numbers_of_thousands_of_digits(tmp_path: Path) -> None:
    unused = written(tmp_path, entry_text(1, [("note", "9" * 5000)]))
    assert len(coco.read_coco(unused, Findings(strict=True)).ids) == 1
    with pytest.raises(DataError, match=re.escape("train.json: not valid JSON: ")):
        coco.read_coco(written(tmp_path, entry_text(1, [("area", "9" * 5000)])), Findings(strict=True))
