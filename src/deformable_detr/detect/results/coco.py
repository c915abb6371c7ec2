"""COCO's results, and the list of images that they are about."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from deformable_detr.detect.results.saved import Add, Classes, Saved, Writer
from deformable_detr.detect.results.whole_text import whole_list

LONGEST_ID = 15     # digits


def coco(files: Sequence[Path], *, only_files: bool) -> Writer:
    """The writer for images of these files; where every name is a number, as in COCO itself, it is the image's id."""
    stems = [path.stem for path in files]
    are_ids = all(stem.isdecimal() and stem.isascii() and len(stem) <= LONGEST_ID for stem in stems)
    return partial(_coco, by_name=only_files and are_ids and len(set(map(int, stems))) == len(stems))


@contextmanager
def _coco(folder: Path, classes: Classes, by_name: bool) -> Iterator[Add]:
    categories = [{"id": identity, "name": name} for identity, name in zip(classes.category_ids, classes.names,
                                                                           strict=True)]
    start = f'{{"categories": {json.dumps(categories)}, "annotations": [], "images": ['
    with whole_list(folder / "images.json", start, "]}") as write_image, \
            whole_list(folder / "results.json") as write_result:
        def add(saved: Saved) -> None:
            height, width = saved.detections.image_size
            identity = int(Path(saved.listed).stem) if by_name else saved.number
            write_image(json.dumps({"id": identity, "file_name": saved.listed, "width": width, "height": height}))
            for result in saved.detections.to_coco(identity, classes.category_ids):
                write_result(json.dumps(result))
        yield add
