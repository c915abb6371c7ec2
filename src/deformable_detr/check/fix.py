"""A repaired copy of a data set, in COCO's format: repaired where that is certain, without the rest."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from deformable_detr.check import Checkup
from deformable_detr.check.images import FORMATS_OF_SUFFIX
from deformable_detr.check.repair import Done, Part, repair
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.kinds import Fault
from deformable_detr.progress import Progress, no_progress

# What reading leaves out, or takes as it was meant.
DONE_IN_READING = {
    Fault.ANNOTATION_FILE: "annotation files that cannot be used left out", Fault.ENTRY: "entries left out",
    Fault.ID_TWICE: "entries with an id that is taken left out", Fault.CLASS_UNKNOWN: "objects of no class left out",
    Fault.PICTURE_UNKNOWN: "objects of no image left out", Fault.NAME_REFUSED: "refused names left out",
    Fault.PICTURE_MISSING: "missing images left out", Fault.PICTURE_UNREADABLE: "unreadable images left out",
    Fault.PICTURE_TRUNCATED: "truncated images left out", Fault.BOX_PIXELS: "boxes in pixels taken as such"}


def write_fixed(checkup: Checkup, out: Path, progress: Progress = no_progress) -> Done:
    """Write `annotations/instances_{split}.json` and `images/{split}/` into `out`; returns what was done, counted.

    Images are copied, never linked, so that editing the copy leaves the source alone. Raises OSError, and ValueError
    for a fast checkup, which has decoded no image.
    """
    if checkup.scan is None:
        raise ValueError("checkup: expected one that has decoded the images, got a fast one")
    parts, done = repair(checkup.splits, checkup.scan)
    done.update({DONE_IN_READING[kind]: count for kind, count, _ in checkup.findings.groups()
                 if kind in DONE_IN_READING})
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for split, part in parts.items():
        (out / "images" / split).mkdir(parents=True, exist_ok=True)
        names = list(_names(part))
        sources = part.annotations.store.sources(part.annotations.images)
        for name, source in zip(progress(names, len(names), f"copying {split}"), sources, strict=True):
            if isinstance(source, bytes):
                (out / "images" / split / name).write_bytes(source)
            else:
                shutil.copyfile(source, out / "images" / split / name)
        content = json.dumps(_coco(part.annotations, names), ensure_ascii=False)
        (out / "annotations" / f"instances_{split}.json").write_text(content, encoding="utf-8")
    return done


def _names(part: Part) -> Iterator[str]:
    """A file name for each image, with the suffix of its format; numbered where the name is taken."""
    taken: set[str] = set()
    for image, scanned in zip(part.annotations.images, part.scanned, strict=True):
        path = PurePath(image.file_name)
        fitting = [suffix for suffix, formats in FORMATS_OF_SUFFIX.items() if scanned and scanned.format in formats]
        suffix = path.suffix if path.suffix.lower() in fitting or not fitting else fitting[0]
        name, number = f"{path.stem}{suffix}", 1
        while name.casefold() in taken:     # on some file systems A.jpg and a.jpg are one name
            number += 1
            name = f"{path.stem}-{number}{suffix}"
        taken.add(name.casefold())
        yield name


def _coco(annotations: Annotations, names: list[str]) -> dict[str, Any]:
    """COCO's format. Class ids begin at 1, since some tools take 0 as the background."""
    shift = 1 if min(annotations.category_ids, default=1) < 1 else 0
    ids = [identity + shift for identity in annotations.category_ids]
    columns = (annotations.image_index, annotations.labels, annotations.boxes, annotations.areas, annotations.crowd)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {
        "images": [{"id": number, "file_name": name, "width": image.width, "height": image.height}
                   for number, (image, name) in enumerate(zip(annotations.images, names, strict=True), start=1)],
        "categories": [{"id": identity, "name": name} for identity, name in zip(ids, annotations.names, strict=True)],
        "annotations": [{"id": number, "image_id": index + 1, "category_id": ids[label], "bbox": box, "area": area,
                         "iscrowd": int(crowd)}
                        for number, (index, label, box, area, crowd) in enumerate(rows, start=1)]}
