"""The rows of the tables of classes and of object sizes."""

from dataclasses import dataclass

import numpy as np

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.evaluation import CocoCurves, CocoMetrics
from deformable_detr.report.errors import Outcomes
from deformable_detr.report.thresholds import AtThreshold, at_thresholds, best

SIZES = ("small", "medium", "large")
SIZE_LIMITS = (32**2, 96**2)    # square pixels, as in COCO


@dataclass(frozen=True)
class ClassRow:
    """One class; NaN where it has no objects."""

    name: str
    num_objects: int
    num_images: int
    AP: float
    AP50: float
    AP75: float
    by_size: list[float]        # AP of small, medium and large objects
    best: AtThreshold


@dataclass(frozen=True)
class SizeRow:
    """Objects of one size."""

    name: str
    num_objects: int
    AP: float
    AR: float


def class_rows(annotations: Annotations, curves: CocoCurves, outcomes: Outcomes) -> list[ClassRow]:
    """A row for each class, in the order of the data set; crowds are not counted."""
    objects = ~annotations.crowd
    labels, num_classes = annotations.labels[objects], len(annotations.names)
    places = np.unique(np.stack([labels, annotations.image_index[objects]]), axis=1)
    num_objects, num_images = (np.bincount(which, minlength=num_classes).tolist() for which in (labels, places[0]))
    per_class = curves.per_class
    mean = per_class.mean(axis=0)
    return [ClassRow(annotations.names[label], number, num_images[label], mean[label, 0], per_class[0, label, 0],
                     per_class[5, label, 0], mean[label, 1:].tolist(), best(at_thresholds(detected, number)))
            for label, (number, detected) in enumerate(zip(num_objects, outcomes.by_class(num_classes), strict=True))]


def size_rows(annotations: Annotations, metrics: CocoMetrics) -> list[SizeRow]:
    """Small, medium and large objects, by the areas in the annotations."""
    sizes = np.searchsorted(SIZE_LIMITS, annotations.areas[~annotations.crowd], side="right")
    counts = np.bincount(sizes, minlength=len(SIZES)).tolist()
    return [SizeRow(name, count, getattr(metrics, f"AP_{name}"), getattr(metrics, f"AR_{name}"))
            for name, count in zip(SIZES, counts, strict=True)]
