"""A small data set on disk, to be spoilt by the tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.synthetic import box, image_entry, paint

WriteData = Callable[..., Path]


@pytest.fixture
def write_data(tmp_path: Path) -> WriteData:
    """Writes `annotations/{split}.json` beside `images/`; keywords replace its three lists. Train comes with a val."""
    def write(split: str = "train", **lists: Any) -> Path:
        content = {
            "images": [image_entry(7, "a.png", 40, 30), image_entry(3, "b.png", 30, 40),
                       image_entry(9, "empty.png", 40, 30)],
            "annotations": [box(1, 7, 20, [2, 3, 10, 12]), box(2, 3, 5, [0, 0, 30, 40]),
                            box(3, 7, 5, [5, 5, 9, 9])],
            "categories": [{"id": 20, "name": "cat"}, {"id": 5, "name": "dog"}],
            **lists,
        }
        folder = tmp_path / "data"
        (folder / "annotations").mkdir(exist_ok=True, parents=True)
        (folder / "images").mkdir(exist_ok=True)
        for name in {split, "val"}:
            (folder / "annotations" / f"{name}.json").write_text(json.dumps(content))
        for name, width, height in (("a.png", 40, 30), ("b.png", 30, 40), ("empty.png", 40, 30)):
            paint(folder / "images" / name, width, height)
        return folder

    return write
