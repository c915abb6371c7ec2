"""What is wrong with each detection, and what it costs (TIDE: Bolya et al., 2020, arXiv 2008.08115, section 2).

Everything is counted at IoU 0.5, up to 100 detections an image, as AP50 is.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, Int

from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.report.comparing import IOU, Comparison, compare, match

BACKGROUND_IOU = 0.1    # below, a detection has nothing to do with an object
RECALLS = np.linspace(0, 1, 101)


class Kind(IntEnum):
    """What a detection is; with several reasons the first of those that say "wrong"."""

    RIGHT = 0
    IGNORED = 1             # in a crowd: neither right nor wrong
    LOCALISATION = 2        # the class of an object that it overlaps, but too little
    CLASSIFICATION = 3      # on an object of another class
    DUPLICATE = 4           # on an object that a better one has found
    BACKGROUND = 5          # on nothing
    BOTH = 6                # of another class than the object that it overlaps, and too little


@dataclass(frozen=True)
class Outcomes:
    """What became of all D detections of a data set and of its T objects (the rows of its annotations)."""

    image: Int[np.ndarray, "D"]           # index into the annotations' images
    scores: Float[np.ndarray, "D"]
    labels: Int[np.ndarray, "D"]            # classes of the data set
    kinds: Int[np.ndarray, "D"]
    targets: Int[np.ndarray, "D"]           # the object found, or missed by box or class alone; else -1
    object_labels: Int[np.ndarray, "T"]
    counted: Bool[np.ndarray, "T"]          # False for crowds

    @property
    def right(self) -> Bool[np.ndarray, "D"]:
        return self.kinds == Kind.RIGHT

    @property
    def found(self) -> Bool[np.ndarray, "T"]:
        """Which objects were found."""
        return self.aimed_at(Kind.RIGHT)

    @property
    def missed(self) -> Bool[np.ndarray, "T"]:
        """Which objects have no detection that a better box or another class would make right."""
        return self.counted & ~self.aimed_at(Kind.RIGHT, Kind.LOCALISATION, Kind.CLASSIFICATION)

    def aimed_at(self, *kinds: Kind) -> Bool[np.ndarray, "T"]:
        """Which objects are the target of a detection of these kinds."""
        aimed = np.zeros(len(self.counted), bool)
        aimed[self.targets[np.isin(self.kinds, kinds)]] = True
        return aimed

    def of(self, detections: Bool[np.ndarray, "D"] | Int[np.ndarray, "chosen"]) -> "Outcomes":
        """The same with these detections alone."""
        return replace(self, **{name: getattr(self, name)[detections]
                                for name in ("image", "scores", "labels", "kinds", "targets")})


def judge(evaluator: CocoEvaluator) -> Outcomes:
    """What became of everything that an evaluator was told."""
    truth = evaluator.annotations
    parts = [_judge_image(comparison) for comparison in compare(evaluator)]
    image, scores, labels, kinds, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Outcomes(image, scores, labels, kinds, targets, truth.labels, ~truth.crowd)


def _judge_image(comparison: Comparison) -> tuple[np.ndarray, ...]:
    """image, scores, labels, kinds, targets of the detections, as small as they may be"""
    overlaps = comparison.overlaps()
    found = match(comparison, overlaps)
    in_crowd = np.append(comparison.crowd, False)[found]
    # A column of zeros beyond the objects stands for none.
    things = np.append(overlaps * ~comparison.crowd, np.zeros((len(overlaps), 1)), axis=1)
    same = np.append(comparison.same_class, np.ones((len(overlaps), 1), bool), axis=1)
    own, other = things * same, things * ~same
    nearest_own, nearest_other = own.max(axis=1), other.max(axis=1)
    kinds = np.select(
        [in_crowd, found >= 0, (nearest_own >= BACKGROUND_IOU) & (nearest_own < IOU), nearest_other >= IOU,
         nearest_own >= IOU, np.maximum(nearest_own, nearest_other) < BACKGROUND_IOU],
        [Kind.IGNORED, Kind.RIGHT, Kind.LOCALISATION, Kind.CLASSIFICATION, Kind.DUPLICATE, Kind.BACKGROUND], Kind.BOTH)
    target = np.select([kinds == Kind.RIGHT, kinds == Kind.LOCALISATION, kinds == Kind.CLASSIFICATION],
                       [found, own.argmax(axis=1), other.argmax(axis=1)], -1)
    targets = np.append(comparison.rows, -1)[target]
    return (np.full(len(kinds), comparison.image, np.int32), comparison.scores.astype(np.float32),
            comparison.labels.astype(np.int32), kinds.astype(np.int8), targets.astype(np.int32))


def ap50(outcomes: Outcomes, objects: Bool[np.ndarray, "T"] | None = None) -> float:
    """Mean over the classes of AP at IoU 0.5, as COCO counts it; NaN where there is nothing to find.

    `objects` are those to be found, by default all but crowds.
    """
    objects = outcomes.counted if objects is None else objects
    num_objects = np.bincount(outcomes.object_labels[objects]).tolist()
    by_score = np.argsort(-outcomes.scores, kind="stable")
    by_score = by_score[outcomes.kinds[by_score] != Kind.IGNORED]
    labels, right = outcomes.labels[by_score], outcomes.right[by_score]
    areas = [_average_precision(right[labels == label], number) for label, number in enumerate(num_objects) if number]
    return float(np.mean(areas)) if areas else float("nan")


def _average_precision(right: Bool[np.ndarray, "D"], num_objects: int) -> float:
    """The mean of precision at 101 recalls, of detections from the best to the worst."""
    num_right = right.cumsum()
    precision = num_right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(num_right / num_objects, RECALLS)
    return float(np.append(envelope, 0)[np.minimum(reached, len(envelope))].mean())


@dataclass(frozen=True)
class ErrorKind:
    """How often something was wrong, and how much AP50 would rise without it."""

    name: str
    meaning: str
    count: int
    cost: float


MEANINGS = {
    Kind.CLASSIFICATION: "the box of an object, under another class",
    Kind.LOCALISATION: "the class of an object, with a box off by too much (IoU 0.1 to 0.5)",
    Kind.BOTH: "another class, and a box off by too much",
    Kind.DUPLICATE: "an object found again",
    Kind.BACKGROUND: "a detection where no object is",
}


def count_errors(outcomes: Outcomes) -> list[ErrorKind]:
    """Every kind of error by itself: its number, and AP50 with it mended less AP50 as it is."""
    before = ap50(outcomes)
    kinds = [ErrorKind(kind.name.lower(), meaning, int((outcomes.kinds == kind).sum()),
                       ap50(_mended(outcomes, kind)) - before)
             for kind, meaning in MEANINGS.items()]
    missed = outcomes.missed
    cost = ap50(outcomes, outcomes.counted & ~missed) - before
    return [*kinds, ErrorKind("missed", "an object that none of the above comes near", int(missed.sum()), cost)]


def _mended(outcomes: Outcomes, kind: Kind) -> Outcomes:
    """As if the detections of a kind had been put right.

    One that aims at an object that nobody has found becomes right, the best where there are several; all others of
    the kind are taken away.
    """
    wrong = outcomes.kinds == kind
    aimed = np.flatnonzero(wrong & (outcomes.targets >= 0))
    aimed = aimed[~outcomes.found[outcomes.targets[aimed]]]
    aimed = aimed[np.argsort(-outcomes.scores[aimed], kind="stable")]
    _, best = np.unique(outcomes.targets[aimed], return_index=True)
    mended = aimed[best]
    kinds, labels = outcomes.kinds.copy(), outcomes.labels.copy()
    kinds[mended], labels[mended] = Kind.RIGHT, outcomes.object_labels[outcomes.targets[mended]]
    return replace(outcomes, kinds=kinds, labels=labels).of(~wrong | (kinds == Kind.RIGHT))
