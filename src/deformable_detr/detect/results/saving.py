"""Results in several formats at once, image by image."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from deformable_detr.detect.results import CROPS, PLACES, Format
from deformable_detr.detect.results.coco import coco
from deformable_detr.detect.results.crops import crops
from deformable_detr.detect.results.csv_table import csv_table
from deformable_detr.detect.results.image_files import suffix_for
from deformable_detr.detect.results.json_lines import json_lines
from deformable_detr.detect.results.labels import labels
from deformable_detr.detect.results.naming import Names
from deformable_detr.detect.results.saved import Add, Classes, Saved, Writer, valid_text
from deformable_detr.detect.results.voc import voc
from deformable_detr.detect.results.yolo import yolo
from deformable_detr.detections import Detections

WRITERS: dict[Format, Writer] = {"json": json_lines, "csv": csv_table, "yolo": yolo, "voc": voc, "labels": labels}


class Saving:
    """Writes into `folder` what is added, for the classes with these names and category ids.

    `files` are the image files of the call, and `only_files` says that there is nothing else. Files about all images
    are complete at the end of the block; an exception other than KeyboardInterrupt leaves none.
    """

    def __init__(self, folder: Path, formats: Sequence[Format], classes: Classes, files: Sequence[Path], *,
                 only_files: bool, with_crops: bool = False) -> None:
        writers = {**WRITERS, "coco": coco(files, only_files=only_files)}
        self._writers = [(folder / PLACES[each], writers[each]) for each in formats]
        if with_crops:
            self._writers.append((folder / CROPS, crops))
        self._classes = classes
        self._root = _common_folder(files)
        self._names = Names()
        self._number = 0
        self._adds: list[Add] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Saving":
        with ExitStack() as stack:
            self._adds = [stack.enter_context(write(path, self._classes)) for path, write in self._writers]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """An interrupted call is kept as far as it came: that is how one of a camera ends."""
        if isinstance(error, KeyboardInterrupt):
            self._stack.close()
        else:
            self._stack.__exit__(kind, error, trace)

    def add(self, file: str, path: Path, detections: Detections, *, image: np.ndarray | None = None,
            is_file: bool = True, place: Mapping[str, Any] | None = None) -> None:
        """Write what was found in the image of `path`, printed as `file`; or if it `is_file` not, in one named like it.

        `place` has the "frame" and "seconds" of a frame. Raises OSError.
        """
        place = place or {}
        stem = f"{path.stem}_{place['frame']:06d}" if "frame" in place else path.stem
        name = self._names.claim(stem) + (path.suffix if is_file else suffix_for(detections.image_size))
        listed, folder = self._listed(path) if is_file else (name, "")
        self._number += 1
        saved = Saved(file, place, self._number, name, listed, folder, path if is_file else None, image, detections)
        for add in self._adds:
            add(saved)

    def _listed(self, path: Path) -> tuple[str, str]:
        """The path below the common folder, and the name of that."""
        if self._root is None:
            return valid_text(path.name), ""
        below = os.path.relpath(path, self._root).replace(os.sep, "/")
        return valid_text(below), valid_text(self._root.name)


def _common_folder(files: Sequence[Path]) -> Path | None:
    """The folder that holds all files, at whatever depth; None if there is none."""
    try:
        return Path(os.path.commonpath({os.path.abspath(file.parent) for file in files}))   # noqa: PTH100
    except ValueError:      # no files, or some on another drive
        return None
