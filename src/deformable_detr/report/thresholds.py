"""How many detections are right from which score on, and which score is the best to begin at."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from deformable_detr.report.errors import Kind, Outcomes

CANDIDATES = np.arange(1, 100) / 100


@dataclass(frozen=True)
class AtThreshold:
    """What detections that reach a score are worth, at IoU 0.5."""

    threshold: float
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """The share of detections that are right; NaN where there is none."""
        return _share(self.right, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """The share of objects that are found; NaN where there is none."""
        return _share(self.right, self.right + self.missed)

    @property
    def f1(self) -> float:
        """The harmonic mean of both; NaN where there is neither detection nor object."""
        return _share(2 * self.right, 2 * self.right + self.wrong + self.missed)


def at_thresholds(outcomes: Outcomes, label: int | None = None) -> list[AtThreshold]:
    """Of one class, or of all together, at 0.01, 0.02, ..., 0.99."""
    chosen = outcomes.kinds != Kind.IGNORED
    objects = outcomes.counted
    if label is not None:
        chosen, objects = chosen & (outcomes.labels == label), objects & (outcomes.object_labels == label)
    right = _reaching(outcomes.scores[chosen & outcomes.right])
    all_detections = _reaching(outcomes.scores[chosen])
    num_objects = int(objects.sum())
    return [AtThreshold(threshold, found, detections - found, num_objects - found)
            for threshold, found, detections in zip(CANDIDATES.tolist(), right, all_detections, strict=True)]


def best(thresholds: list[AtThreshold]) -> AtThreshold:
    """The one with the highest F1, of equals the middle one: scores move a little from image to image.

    Where nothing is found at any, 0.5.
    """
    highest = max((at.f1 for at in thresholds if at.right), default=None)
    if highest is None:
        return min(thresholds, key=lambda at: abs(at.threshold - 0.5))
    equals = [at for at in thresholds if at.f1 == highest]
    return equals[len(equals) // 2]


def image_counts(outcomes: Outcomes, image_index: np.ndarray, num_images: int, threshold: float,
                   ) -> Float[np.ndarray, "P 3"]:
    """Right detections, wrong ones and missed objects of every image at a score.

    `image_index` says of each object in which image it is.
    """
    shown = outcomes.of((outcomes.scores >= np.float32(threshold)) & (outcomes.kinds != Kind.IGNORED))
    right, wrong = (np.bincount(shown.image[which], minlength=num_images) for which in (shown.right, ~shown.right))
    missed = np.bincount(image_index[outcomes.counted & ~shown.found], minlength=num_images)
    return np.stack([right, wrong, missed], axis=1).astype(np.float64)


def _reaching(scores: np.ndarray) -> list[int]:
    """How many scores reach each threshold."""
    ascending = np.sort(scores)
    return (len(ascending) - np.searchsorted(ascending, CANDIDATES.astype(np.float32))).tolist()


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
