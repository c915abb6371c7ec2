"""Classes and splits beside one another: what is missing, rare, or named twice."""

import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings, Place
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.targets import BoxFaults
from deformable_detr.text import quoted

FEW_OBJECTS = 10
IMBALANCE = 100         # times as many objects in the most frequent class
MOST = 0.5              # share of a split's images


def check_classes(splits: Mapping[str, Annotations], faults: Mapping[str, BoxFaults], findings: Findings) -> None:
    """Report what is odd about the classes; counted are the objects that can be trained on."""
    _check_names(splits, findings)
    for split, annotations in splits.items():
        usable = faults[split].usable
        counts = np.bincount(annotations.labels[usable], minlength=len(annotations.names))
        if not counts.any():
            if split != "test":
                findings.add(Kind.NO_OBJECTS, Place(annotations.file), f"no object in {split}, which has "
                             f"{len(annotations.images)} images")
            continue
        _check_counts(split, annotations, counts, findings)
        in_image = np.bincount(annotations.image_index[usable], minlength=len(annotations.images))
        num_empty = int((in_image == 0).sum())
        if num_empty > MOST * len(annotations.images):
            findings.add(Kind.PICTURES_EMPTY, Place(annotations.file),
                         f"{num_empty} of the {len(annotations.images)} images of {split} have no objects")


def _check_counts(split: str, annotations: Annotations, counts: np.ndarray, findings: Findings) -> None:
    most = int(counts.argmax())
    for name, count in zip(annotations.names, counts.tolist(), strict=True):
        place = Place(annotations.file, entry=f"class {quoted(name)}")
        if count == 0:
            findings.add(Kind.CLASS_ABSENT, place, f"no object in {split}")
        elif split == "train" and count < FEW_OBJECTS:
            findings.add(Kind.CLASS_RARE, place, f"{count} objects in train")
        if split == "train" and 0 < count * IMBALANCE < counts[most]:
            findings.add(Kind.CLASS_IMBALANCE, place, f"{count} objects in train, of {quoted(annotations.names[most])} "
                         f"{counts[most]}")


def _check_names(splits: Mapping[str, Annotations], findings: Findings) -> None:
    first = next(iter(splits.values()))
    for annotations in splits.values():
        missing, further = (", ".join(map(quoted, sorted(names))) for names in (
            set(first.names) - set(annotations.names), set(annotations.names) - set(first.names)))
        if missing or further:
            findings.add(Kind.CLASSES_DIFFER, Place(annotations.file), f"beside {first.file} it lacks "
                         f"{missing or 'nothing'} and adds {further or 'nothing'}")
    alike: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(name for annotations in splits.values() for name in annotations.names):
        alike[re.sub(r"[\s_-]+", " ", name.strip().casefold())].append(name)
    for names in alike.values():
        if len(names) > 1:
            findings.add(Kind.CLASS_ALIKE, Place(first.file, entry=f"class {quoted(names[0])}"),
                         f"there is {', '.join(map(quoted, names[1:]))} too")
    ids = first.category_ids
    if ids[-1] - ids[0] + 1 > len(ids):
        gap = next(low + 1 for low, high in pairwise(ids) if high > low + 1)
        findings.add(Kind.IDS_SPARSE, Place(first.file), f"{len(ids)} classes have ids from {ids[0]} to {ids[-1]}; the "
                     f"first that is missing is {gap}")
