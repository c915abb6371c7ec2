"""How many detections are right at each score threshold, and which threshold is best."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from deformable_detr.report.errors import Outcome, Outcomes

CANDIDATES = np.arange(1, 100) / 100


@dataclass(frozen=True)
class AtThreshold:
    """Counts of the detections whose score reaches a threshold, at IoU 0.5."""

    threshold: float
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """The share of detections that are right; NaN without detections."""
        return _share(self.right, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """The share of objects that are found; NaN without objects."""
        return _share(self.right, self.right + self.missed)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; NaN with neither detections nor objects."""
        return _share(2 * self.right, 2 * self.right + self.wrong + self.missed)


def at_thresholds(outcomes: Outcomes, num_objects: int) -> list[AtThreshold]:
    """The detections of `outcomes` among this many objects, at 0.01, 0.02, ..., 0.99."""
    right = _reaching(outcomes.scores[outcomes.right])
    detections = _reaching(outcomes.scores[outcomes.kinds != Outcome.IGNORED])
    return [AtThreshold(threshold, found, number - found, num_objects - found)
            for threshold, found, number in zip(CANDIDATES.tolist(), right, detections, strict=True)]


def best(thresholds: list[AtThreshold]) -> AtThreshold:
    """The one with the highest F1; of equals the middle one, as scores vary a little between images.

    0.5 where no detection is right.
    """
    highest = max((at.f1 for at in thresholds if at.right), default=None)
    if highest is None:
        return min(thresholds, key=lambda at: abs(at.threshold - 0.5))
    equals = [at for at in thresholds if at.f1 == highest]
    return equals[len(equals) // 2]


def image_counts(outcomes: Outcomes, image_index: Int[np.ndarray, "T"], num_images: int, threshold: float,
                 ) -> Float[np.ndarray, "P 3"]:
    """Right detections, wrong detections and missed objects of every image at a threshold.

    `image_index` is the image of each object.
    """
    shown = outcomes.of((outcomes.scores >= np.float32(threshold)) & (outcomes.kinds != Outcome.IGNORED))
    right, wrong = (np.bincount(shown.image[which], minlength=num_images) for which in (shown.right, ~shown.right))
    missed = np.bincount(image_index[outcomes.counted & ~shown.found], minlength=num_images)
    return np.stack([right, wrong, missed], axis=1).astype(np.float64)


def _reaching(scores: np.ndarray) -> list[int]:
    """How many scores reach each threshold."""
    ascending = np.sort(scores)
    return (len(ascending) - np.searchsorted(ascending, CANDIDATES.astype(np.float32))).tolist()


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
