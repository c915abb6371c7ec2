"""Images and objects as a format without numbers gives them, one after another, on their way to `Annotations`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deformable_detr.datasets.annotations import Annotations, ImageStore
from deformable_detr.datasets.image_list import ImageList, ImageRecord


class Rows:
    """Gathers images, each with its label file and its objects, which are numbered from 1."""

    def __init__(self) -> None:
        self._images: list[ImageRecord] = []
        self._sources: list[Path] = []
        self._image_index: list[int] = []
        self._labels: list[int] = []
        self._boxes: list[Sequence[float]] = []
        self._crowd: list[bool] = []
        self._lines: list[int] = []

    @property
    def num_images(self) -> int:
        """How many there are so far."""
        return len(self._images)

    def start(self, image: ImageRecord, source: Path) -> None:
        """Begin an image; the objects that follow are its own and stand in `source`."""
        self._images.append(image)
        self._sources.append(source)

    def add(self, label: int, box: Sequence[float], line: int, crowd: bool = False) -> None:
        """Add an object: class index, box (x, y, width, height in pixels), and the line it stands on."""
        self._image_index.append(len(self._images) - 1)
        self._labels.append(label)
        self._boxes.append(box)
        self._crowd.append(crowd)
        self._lines.append(line)

    def annotations(self, file: Path, names: tuple[str, ...], category_ids: tuple[int, ...],
                    store: ImageStore) -> Annotations:
        """All of it. The area of an object is that of its box."""
        boxes = np.array(self._boxes, np.float64).reshape(-1, 4)
        return Annotations(
            file, names, category_ids, ImageList.of(self._images), np.arange(1, len(boxes) + 1),
            np.array(self._image_index, np.int64), np.array(self._labels, np.int64), boxes,
            boxes[:, 2] * boxes[:, 3], np.array(self._crowd, bool), store, tuple(self._sources),
            np.array(self._lines, np.int64))
