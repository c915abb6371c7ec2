"""Classes and splits compared: what is missing, rare, or named twice."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np

from deformable_detr.check.boxes import BoxFaults
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings, Place
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.sides import left_right_names
from deformable_detr.text import quoted

FEW_OBJECTS = 10
IMBALANCE = 100         # times as many objects in the most frequent class
MOST = 0.5              # share of a split's images


def check_classes(splits: Mapping[str, Annotations], faults: Mapping[str, BoxFaults], findings: Findings, *,
                  mirrored: bool = True) -> None:
    """Report faults of the classes; only objects that can be trained on are counted."""
    first = splits.get("train", next(iter(splits.values())))
    for annotations in splits.values():
        _compare_names(annotations, first, findings)
    if mirrored:
        _check_sides(first, findings)
    _check_names(first, [name for annotations in splits.values() for name in annotations.names], findings)
    for split, annotations in splits.items():
        usable = faults[split].usable
        counts = np.bincount(annotations.labels[usable], minlength=len(annotations.names))
        if not counts.any():
            if split != "test":
                findings.add(Fault.NO_OBJECTS, Place(annotations.file), f"no object in {split}, which has "
                             f"{len(annotations.images)} images")
            continue
        _check_counts(split, annotations, counts, findings)
        in_image = np.bincount(annotations.image_index[usable], minlength=len(annotations.images))
        num_empty = int((in_image == 0).sum())
        if num_empty > MOST * len(annotations.images):
            findings.add(Fault.PICTURES_EMPTY, Place(annotations.file),
                         f"{num_empty} of the {len(annotations.images)} images of {split} have no objects")


def _check_counts(split: str, annotations: Annotations, counts: np.ndarray, findings: Findings) -> None:
    most = int(counts.argmax())
    for name, count in zip(annotations.names, counts.tolist(), strict=True):
        place = Place(annotations.file, entry=f"class {quoted(name)}")
        if count == 0:
            findings.add(Fault.CLASS_ABSENT, place, f"no object in {split}")
        elif split == "train" and count < FEW_OBJECTS:
            findings.add(Fault.CLASS_RARE, place, f"{count} objects in train")
        if split == "train" and 0 < count * IMBALANCE < counts[most]:
            findings.add(Fault.CLASS_IMBALANCE, place, f"{count} objects in train, but {counts[most]} of "
                         f"{quoted(annotations.names[most])}")


def _compare_names(annotations: Annotations, first: Annotations, findings: Findings) -> None:
    """Report what cannot be matched by name, or what somebody who counts classes would take for another one."""
    missing, further = (", ".join(map(quoted, sorted(names))) for names in (
        set(first.names) - set(annotations.names), set(annotations.names) - set(first.names)))
    unlearned = [name for label, name in enumerate(annotations.names)
                 if name not in first.names and (annotations.labels == label).any()]
    place = Place(annotations.file)
    if unlearned:
        findings.add(Fault.CLASSES_UNLEARNED, place, f"there are objects of {', '.join(map(quoted, unlearned))}, which "
                     f"{first.file} does not list")
    elif missing or further:
        findings.add(Fault.CLASSES_DIFFER, place, f"compared with {first.file}, "
                     f"{missing or 'none'} missing, {further or 'none'} added")
    elif annotations.names != first.names:
        findings.add(Fault.CLASSES_ORDER, place, f"{quoted(list(annotations.names))}, while {first.file} lists "
                     f"{quoted(list(first.names))}")


def _check_sides(first: Annotations, findings: Findings) -> None:
    for name in left_right_names(first.names):
        findings.add(Fault.CLASS_SIDES, Place(first.file, entry=f"class {quoted(name)}"),
                     "an image and its mirror image show different classes")


def _check_names(first: Annotations, names: Iterable[str], findings: Findings) -> None:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        alike[re.sub(r"[\s_-]+", " ", name.strip().casefold())].append(name)
    for same in alike.values():
        if len(same) > 1:
            findings.add(Fault.CLASS_ALIKE, Place(first.file, entry=f"class {quoted(same[0])}"),
                         f"there is also {', '.join(map(quoted, same[1:]))}")
    ids = first.category_ids
    if ids and ids[-1] - ids[0] + 1 > len(ids):
        gap = next(low + 1 for low, high in pairwise(ids) if high > low + 1)
        findings.add(Fault.IDS_SPARSE, Place(first.file), f"{len(ids)} classes have ids from {ids[0]} to {ids[-1]}; "
                     f"the first one missing is {gap}")
