"""Objects that are given twice, too small to be seen, or too many to be found."""

from collections import Counter

import numpy as np
from jaxtyping import Float, Int64

from deformable_detr.check.boxes import BoxFaults, report_rows
from deformable_detr.check.limits import Limits
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import MAX_KEPT, Findings
from deformable_detr.datasets.kinds import Fault

ROUNDING = 1000     # boxes that differ by less than a thousandth of a pixel are the same
MIXING = np.sqrt([2, 3, 5, 7, 11])      # sums with these factors are equal for equal rows, and for few others


def check_objects(annotations: Annotations, faults: BoxFaults, limits: Limits, findings: Findings) -> None:
    """Report such objects of one split."""
    duplicate, other_class = find_duplicates(annotations)
    report_rows(Fault.BOX_DUPLICATE, annotations, duplicate, findings)
    report_rows(Fault.BOX_TWO_CLASSES, annotations, other_class, findings)
    report_rows(Fault.BOX_TINY, annotations, _tiny(annotations, faults, limits), findings)
    counts = np.bincount(annotations.image_index[faults.usable], minlength=len(annotations.images))
    images = annotations.images
    for kind, most, limit in ((Fault.OBJECTS_MANY, limits.num_queries, f"the model has {limits.num_queries} queries"),
                              (Fault.OBJECTS_UNCOUNTED, limits.top_k, f"detections stop at {limits.top_k}")):
        many = np.flatnonzero(counts > most).tolist()
        findings.add_all(kind, len(many), [
            (annotations.place_of_image(index), f"{counts[index]} objects in {images[index].file_name}, {limit}")
            for index in many[:MAX_KEPT]])
    places = [annotations.store.place(image) for image in images]
    listed = Counter(places)
    twice = [index for index, place in enumerate(places) if listed[place] > 1]
    findings.add_all(Fault.PICTURE_TWICE, len(twice), (
        (annotations.place_of_image(index), f"{images[index].file_name} is listed {listed[places[index]]} times")
        for index in twice))


def find_duplicates(annotations: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """Which objects have the box of an earlier one of their image: of the same class, and of another. (T,) each"""
    duplicate, other_class = np.zeros((2, len(annotations.boxes)), bool)
    keys = np.column_stack([annotations.image_index, np.rint(annotations.boxes * ROUNDING)])
    rows = _perhaps_equal(keys)
    order = rows[np.lexsort((annotations.labels[rows], *keys[rows].T))]
    same_box = (keys[order][1:] == keys[order][:-1]).all(1)
    same_class = annotations.labels[order][1:] == annotations.labels[order][:-1]
    duplicate[order[1:][same_box & same_class]] = True
    other_class[order[1:][same_box & ~same_class]] = True
    return duplicate & ~annotations.crowd, other_class & ~annotations.crowd


def _perhaps_equal(keys: Float[np.ndarray, "T 5"]) -> Int64[np.ndarray, "rows"]:
    """The rows that have an equal one, and a few more, in order: sorting one number per row is quicker than five."""
    mixed = (keys * MIXING).sum(axis=1)
    order = np.argsort(mixed)
    same = mixed[order][1:] == mixed[order][:-1]
    return np.union1d(order[1:][same], order[:-1][same])


def _tiny(annotations: Annotations, faults: BoxFaults, limits: Limits) -> np.ndarray:
    """(T,) Which objects have both sides below a pixel of the finest map, once the image has been resized."""
    sides = annotations.boxes[:, 2:].max(1) * limits.scales(annotations.images)[annotations.image_index]
    return faults.usable & ~faults.fractions & (sides < limits.stride)
