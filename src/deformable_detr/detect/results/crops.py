"""Each object as an image of its own, in a folder for each class."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, floor
from pathlib import Path

import numpy as np

from deformable_detr.detect.results.image_files import suffix_for, write_pixels
from deformable_detr.detect.results.naming import Names
from deformable_detr.detect.results.saved import Add, Classes, Saved


@contextmanager
def crops(folder: Path, classes: Classes) -> Iterator[Add]:
    """The pixels that a box touches. Objects of an image are numbered, the best first."""
    names = Names()
    folders = [folder / names.claim(name) for name in classes.names]
    folder.mkdir(parents=True)

    def add(saved: Saved) -> None:
        assert saved.image is not None
        for number, each in enumerate(saved.detections, start=1):
            crop = _crop(saved.image, each.box)
            write_pixels(crop, folders[each.label] / f"{Path(saved.name).stem}-{number}{suffix_for(crop.shape[:2])}")
    yield add


def _crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """At least one pixel."""
    height, width = image.shape[:2]
    left, top = (min(floor(edge), side - 1) for edge, side in zip(box[:2].tolist(), (width, height), strict=True))
    right, bottom = (ceil(edge) for edge in box[2:].tolist())
    return np.ascontiguousarray(image[top:max(bottom, top + 1), left:max(right, left + 1)])
