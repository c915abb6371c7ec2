"""A data set of four small images with a white square each, and a training on it that takes seconds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from deformable_detr.cli import main
from deformable_detr.report import curves
from deformable_detr.training import loop, run_report
from helpers.models import SMALL

SIDE = 64


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    folder = tmp_path / "squares"
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(4):
        array = np.zeros((SIDE, SIDE, 3), np.uint8)
        x, y = (int(value) for value in random.integers(4, 36, 2))
        array[y:y + 24, x:x + 20] = 255
        PIL.Image.fromarray(array).save(folder / "images" / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "width": SIDE, "height": SIDE})
        annotations.append({"id": index, "image_id": index, "category_id": 7, "bbox": [x, y, 20, 24],
                            "area": 480, "iscrowd": 0})
    images.append({"id": 4, "file_name": "empty.png", "width": SIDE, "height": SIDE})
    PIL.Image.new("RGB", (SIDE, SIDE)).save(folder / "images" / "empty.png")
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "square"}]}
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(content))
    shutil.copytree(folder / "images", folder / "val")      # a training refuses files that are in both splits
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs whose pictures and report nobody looks at: they take half of the time of a training this small."""
    monkeypatch.setattr(curves, "draw_curves", lambda *_: b"")
    monkeypatch.setattr(loop, "draw_validation", lambda *_: b"")
    monkeypatch.setattr(run_report, "report_run", lambda *_: None)


@pytest.fixture
def train_flags(squares: Path) -> Callable[..., list[str]]:
    """The arguments of `ddetr train` with a small model; flags are added to them."""
    defaults = {f"--{name.replace('_', '-')}": value for name, value in SMALL.items() if name != "num_classes"}
    recipe = {"--preset": "two-stage", "--size": 64, "--augmentation": "small", "--num-workers": 0, "--batch-size": 3}

    def flags(*added: object) -> list[str]:
        chosen: dict[object, object] = recipe if "--weights" in added else defaults | recipe
        kept = [f"{name}={value}" for name, value in chosen.items() if name not in added]
        return ["train", str(squares), *kept, *map(str, added)]

    return flags


@pytest.fixture
def train(train_flags: Callable[..., list[str]]) -> Callable[..., int]:
    """`ddetr train` with a small model; flags are added to it."""
    return lambda *flags: main(train_flags(*flags))
