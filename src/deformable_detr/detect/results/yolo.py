"""A YOLO data set whose labels have scores, as Ultralytics writes them with `save_txt` and `save_conf`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from deformable_detr.detect.results.image_files import copy_image
from deformable_detr.detect.results.saved import Add, Classes, Saved
from deformable_detr.files import write_whole


@contextmanager
def yolo(folder: Path, classes: Classes) -> Iterator[Add]:
    """Images, and a label file for each, which is empty where nothing was found."""
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    settings = {"train": "images", "names": dict(enumerate(classes.names))}
    write_whole(folder / "data.yaml", yaml.safe_dump(settings, allow_unicode=True, sort_keys=False).encode())
    # Label Studio's converter takes the names from here.
    write_whole(folder / "classes.txt", "".join(f"{name}\n" for name in classes.names).encode())

    def add(saved: Saved) -> None:
        copy_image(saved, images)
        write_whole(labels / f"{Path(saved.name).stem}.txt", saved.detections.to_yolo().encode())
    yield add
