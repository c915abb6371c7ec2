"""The confusion matrix: which class is detected where an object of which class is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.report.comparing import MIN_IOU, Comparison, compare

MAX_CLASSES = 20    # of a table on a page


@dataclass(frozen=True)
class Confusion:
    """Counts for K classes: a row for the class of an object, a column for the class detected in its place.

    The last row counts detections where no object is, the last column missed objects.
    """

    counts: Int[np.ndarray, "rows rows"]    # K + 1
    names: list[str]


def confusion(evaluator: CocoEvaluator, threshold: float) -> Confusion:
    """The matrix of all detections whose score reaches a threshold.

    Detections and objects with an IoU of at least 0.5 are paired whatever their classes, the highest IoU first, among
    equals the highest score. Where there are many classes, those with the most mistakes are shown.
    """
    num_classes = len(evaluator.annotations.names)
    pairs = [_pairs(comparison.above(threshold), num_classes) for comparison in compare(evaluator)]
    true, detected = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
    is_mistake = true != detected
    mistakes = sum(np.bincount(labels[is_mistake], minlength=num_classes + 1)[:-1] for labels in (true, detected))
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:MAX_CLASSES])
    kept = np.append(shown, num_classes)
    place = np.full(num_classes + 1, -1)
    place[kept] = np.arange(len(kept))
    rows, columns = place[true], place[detected]
    counts = np.zeros((len(kept), len(kept)), np.int64)
    is_kept = (rows >= 0) & (columns >= 0)
    np.add.at(counts, (rows[is_kept], columns[is_kept]), 1)
    return Confusion(counts, [evaluator.annotations.names[label] for label in shown])


def _pairs(comparison: Comparison, nothing: int) -> Int[np.ndarray, "2 pairs"]:
    """The classes of objects and of the detections in their places; `nothing` where there is none."""
    overlaps = comparison.overlaps()
    crowd = comparison.crowd
    found = np.full(len(crowd), nothing)            # the class detected in the place of each object
    is_free = np.ones(len(overlaps), bool)
    detections, objects = np.nonzero((overlaps >= MIN_IOU) & ~crowd)
    # Detections are ordered by score, and sorting keeps the order of equals.
    for pair in np.argsort(-overlaps[detections, objects], kind="stable"):
        detection, thing = detections[pair], objects[pair]
        if is_free[detection] and found[thing] == nothing:
            is_free[detection], found[thing] = False, comparison.labels[detection]
    in_crowd = (crowd & comparison.same_class & (overlaps >= MIN_IOU)).any(axis=1)
    false = comparison.labels[is_free & ~in_crowd]
    return np.stack([np.append(comparison.object_labels[~crowd], np.full(len(false), nothing)),
                     np.append(found[~crowd], false)])
