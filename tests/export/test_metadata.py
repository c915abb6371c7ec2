"""What an exported file says about itself, there and back; and entries that a stranger wrote."""

import json
from typing import Any

import pytest

from deformable_detr.export import Form
from deformable_detr.export.metadata import LONGEST_ENTRY, info_for_runtime, read_metadata, write_metadata
from helpers.export_files import INFO
from helpers.models import TINY


@pytest.mark.parametrize("form", [Form(), Form("gather", True, 3, (480, 640), "fp32", 7), Form(size=(1, 1))])
def test_there_and_back(form: Form) -> None:
    assert read_metadata(write_metadata(TINY, INFO, form)) == (TINY, INFO, form)


def test_a_file_that_normalises_takes_colours() -> None:
    assert info_for_runtime(INFO, Form(raw=True)) == INFO
    preprocessing = info_for_runtime(INFO, Form()).preprocessing
    assert preprocessing.mean == (0, 0, 0)
    assert preprocessing.deviation == (1 / 255, 1 / 255, 1 / 255)


def changed(place: str, value: Any) -> str:
    """The entry with another value at form.x or header.x, or without it for None."""
    fields = json.loads(write_metadata(TINY, INFO, Form()))
    *parts, last = place.split(".")
    inner = fields[parts[0]] if parts else fields
    inner[last] = value
    if value is None:
        del inner[last]
    return json.dumps(fields)


@pytest.mark.parametrize(("entry", "message"), [
    (None, "no entry 'deformable_detr' in its metadata"),
    ("", "no entry 'deformable_detr' in its metadata"),
    (" " * (LONGEST_ENTRY + 1), "metadata: expected at most 4194304 characters"),
    ("[" * 100_000, "malformed metadata: not JSON"),
    ("{", "malformed metadata: not JSON"),
    ("[]", "malformed metadata"),
    ("null", "malformed metadata"),
    ("1" * 5000, "malformed metadata: not JSON"),
    (changed("version", 2), "metadata version 2, this release reads 1"),
    (changed("version", None), "malformed metadata"),
    (changed("form", None), "malformed metadata"),
    (changed("form", 5), "malformed metadata"),
    (changed("form.batch", 0), "batch: expected a whole number from 1 to 8192, got 0"),
    (changed("form.batch", 10**30), "batch: expected a whole number from 1 to 8192"),
    (changed("form.size", [10**9, 10]), "size: expected"),
    (changed("form.colour", "red"), "malformed metadata"),
    (changed("header", {"format": "other"}), "not written by deformable-detr"),
    (changed("header", 3), "malformed metadata"),
    (changed("header.config", None), "malformed header: no entry 'config'"),
    (changed("header.config", "[]"), "malformed header"),
    (changed("header.names", json.dumps(["one"])), "names|classes"),
    (changed("header.names", 3), "malformed header: 'names'|malformed"),
    (changed("header.format_version", 3), "format version 3, this release reads 1"),
    (changed("header.format_version", "9" * 5000), "format version '9999"),
    (changed("form.x\n\x1b[31m", 3), r"malformed metadata .*x\\n\\x1b"),
    (changed("header.preprocessing", json.dumps({"mean": [0, 0, 0], "deviation": [0, 0, 0]})), "deviation"),
], ids=lambda value: str(value)[-40:])
def test_an_entry_of_a_stranger_is_one_error(entry: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_metadata(entry)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("field", "value"), [
    ("op", "magic"), ("op", ["gather"]), ("raw", "no"), ("precision", [1]), ("batch", 1.5), ("batch", "2"),
    ("size", [1, 2, 3]), ("size", "ab"), ("size", 5), ("top_k", True), ("top_k", [1])])
def test_fields_of_other_types(field: str, value: Any) -> None:
    """Refused by name; in the tests the type checker may be faster."""
    with pytest.raises(ValueError, match=f"{field}.*: expected|malformed metadata"):
        read_metadata(changed(f"form.{field}", value))
