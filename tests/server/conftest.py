"""What tests of the server share: a detector that is quick to run, and a server with it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from deformable_detr import Detector
from helpers.models import save_tiny
from helpers.serving import Serving, serving


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return Detector(save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors"), device="cpu")


@pytest.fixture(scope="module")
def server(detector: Detector) -> Iterator[Serving]:
    with serving(detector) as server:
        yield server


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Image files of several formats and shapes."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    contents = []
    for index, (suffix, size) in enumerate([("png", (48, 40)), ("jpg", (40, 48)), ("webp", (64, 40))]):
        path = Path(folder / f"{index}.{suffix}")
        PIL.Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        contents.append(path.read_bytes())
    return contents
