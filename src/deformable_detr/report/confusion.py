"""Which class was taken for which: every object beside what was found in its place."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.report.comparing import IOU, Comparison, compare

MAX_CLASSES = 20    # that a table on a page can show


@dataclass(frozen=True)
class Confusion:
    """Counts of objects: a row for what they are, a column for what was found there.

    The last row is what was found where nothing is, the last column what was not found at all.
    """

    counts: Int[np.ndarray, "rows rows"]    # K + 1 of them
    names: list[str]                        # of the K classes shown


def confusion(evaluator: CocoEvaluator, threshold: float) -> Confusion:
    """The matrix of detections from a score on.

    Detections and objects meet in pairs, whatever their classes, the nearest first, from IoU 0.5 on; of detections
    at one place the best. Of many classes those with the most mistakes are shown.
    """
    num_classes = len(evaluator.annotations.names)
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for comparison in compare(evaluator):
        _add_image(counts, comparison.above(threshold))
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-mistakes[:-1], kind="stable")[:MAX_CLASSES])
    kept = np.append(shown, num_classes)
    return Confusion(counts[np.ix_(kept, kept)], [evaluator.annotations.names[label] for label in shown])


def _add_image(counts: Int[np.ndarray, "rows rows"], comparison: Comparison) -> None:
    overlaps = comparison.overlaps()
    crowd = comparison.crowd
    found = np.full(len(overlaps), -1)
    taken = np.zeros(len(crowd), bool)
    detections, objects = np.nonzero((overlaps >= IOU) & ~crowd)
    # Detections come best first, and sorting keeps the order of equals.
    for pair in np.argsort(-overlaps[detections, objects], kind="stable"):
        detection, thing = detections[pair], objects[pair]
        if found[detection] < 0 and not taken[thing]:
            found[detection], taken[thing] = thing, True
            counts[comparison.object_labels[thing], comparison.labels[detection]] += 1
    in_crowd = (crowd & comparison.same_class & (overlaps >= IOU)).any(axis=1)
    counts[-1] += np.bincount(comparison.labels[(found < 0) & ~in_crowd], minlength=len(counts))
    counts[:, -1] += np.bincount(comparison.object_labels[~taken & ~crowd], minlength=len(counts))
