"""What is wrong with each detection, and what it costs (TIDE: Bolya et al., 2020, arXiv 2008.08115, section 2).

Everything is counted at IoU 0.5 with up to 100 detections an image, as AP50 is.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, Int

from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.report.comparing import MIN_IOU, Comparison, compare

BACKGROUND_IOU = 0.1    # below, a detection has nothing to do with an object
RECALLS = np.linspace(0, 1, 101)


class Outcome(IntEnum):
    """What a detection turned out to be; of several errors the first that applies."""

    RIGHT = 0
    IGNORED = 1             # in a crowd: neither right nor wrong
    LOCALISATION = 2        # the class of an object that it overlaps too little
    CLASSIFICATION = 3      # on an object of another class
    DUPLICATE = 4           # on an object that a better detection has found
    BACKGROUND = 5          # where no object is
    BOTH = 6                # overlaps an object of another class too little


@dataclass(frozen=True)
class Outcomes:
    """All D detections in a data set, and its T objects (the rows of its annotations)."""

    image: Int[np.ndarray, "D"]             # index into the annotations' images
    scores: Float[np.ndarray, "D"]
    labels: Int[np.ndarray, "D"]            # classes of the data set
    kinds: Int[np.ndarray, "D"]             # an Outcome each
    targets: Int[np.ndarray, "D"]           # the object found, or missed by box or class only; else -1
    object_labels: Int[np.ndarray, "T"]
    counted: Bool[np.ndarray, "T"]          # False for crowds

    @property
    def right(self) -> Bool[np.ndarray, "D"]:
        return self.kinds == Outcome.RIGHT

    @property
    def found(self) -> Bool[np.ndarray, "T"]:
        """Which objects are found."""
        return self.aimed_at(Outcome.RIGHT)

    @property
    def missed(self) -> Bool[np.ndarray, "T"]:
        """Which objects have no detection that another box or another class would make right."""
        return self.counted & ~self.aimed_at(Outcome.RIGHT, Outcome.LOCALISATION, Outcome.CLASSIFICATION)

    def aimed_at(self, *kinds: Outcome) -> Bool[np.ndarray, "T"]:
        """Which objects are the target of a detection of these kinds."""
        aimed = np.zeros(len(self.counted), bool)
        aimed[self.targets[np.isin(self.kinds, kinds)]] = True
        return aimed

    def of(self, detections: Bool[np.ndarray, "D"] | Int[np.ndarray, "chosen"]) -> "Outcomes":
        """The same with only these detections."""
        return replace(self, **{name: getattr(self, name)[detections]
                                for name in ("image", "scores", "labels", "kinds", "targets")})

    def by_class(self, num_classes: int) -> "list[Outcomes]":
        """The detections of each class by themselves, in the order that they have here."""
        ends = np.bincount(self.labels, minlength=num_classes).cumsum()
        return [self.of(rows) for rows in np.split(np.argsort(self.labels, kind="stable"), ends[:-1])]


def judge(evaluator: CocoEvaluator) -> Outcomes:
    """The outcome of every detection that an evaluator has been given."""
    truth = evaluator.annotations
    parts = [_judge_image(comparison) for comparison in compare(evaluator)]
    image, scores, labels, kinds, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Outcomes(image, scores, labels, kinds, targets, truth.labels, ~truth.crowd)


def _judge_image(comparison: Comparison) -> tuple[np.ndarray, ...]:
    """image, scores, labels, kinds, targets of the detections, in small types: there are millions of them"""
    overlaps = comparison.overlaps()
    found = comparison.found_objects(overlaps)
    in_crowd = np.append(comparison.crowd, False)[found]
    # A column of zeros after the objects represents none.
    things = np.append(overlaps * ~comparison.crowd, np.zeros((len(overlaps), 1)), axis=1)
    same = np.append(comparison.same_class, np.ones((len(overlaps), 1), bool), axis=1)
    own, other = things * same, things * ~same
    nearest_own, nearest_other = own.max(axis=1), other.max(axis=1)
    kinds = np.select(
        [in_crowd, found >= 0, (nearest_own >= BACKGROUND_IOU) & (nearest_own < MIN_IOU), nearest_other >= MIN_IOU,
         nearest_own >= MIN_IOU, np.maximum(nearest_own, nearest_other) < BACKGROUND_IOU],
        [Outcome.IGNORED, Outcome.RIGHT, Outcome.LOCALISATION, Outcome.CLASSIFICATION, Outcome.DUPLICATE,
         Outcome.BACKGROUND], Outcome.BOTH)
    target = np.select([kinds == Outcome.RIGHT, kinds == Outcome.LOCALISATION, kinds == Outcome.CLASSIFICATION],
                       [found, own.argmax(axis=1), other.argmax(axis=1)], -1)
    targets = np.append(comparison.rows, -1)[target]
    return (np.full(len(kinds), comparison.image, np.int32), comparison.scores.astype(np.float32),
            comparison.labels.astype(np.int32), kinds.astype(np.int8), targets.astype(np.int32))


def ap50(outcomes: Outcomes, objects: Bool[np.ndarray, "T"] | None = None) -> float:
    """Mean over the classes of AP at IoU 0.5, as COCO defines it; NaN where there are no objects.

    `objects` are those to be found, by default all but crowds.
    """
    objects = outcomes.counted if objects is None else objects
    num_objects = np.bincount(outcomes.object_labels[objects]).tolist()
    counted = outcomes.of(outcomes.kinds != Outcome.IGNORED)
    by_score = counted.of(np.argsort(-counted.scores, kind="stable"))
    areas = [_average_precision(detected.right, number)
             for detected, number in zip(by_score.by_class(len(num_objects)), num_objects, strict=False) if number]
    return float(np.mean(areas)) if areas else float("nan")


def _average_precision(right: Bool[np.ndarray, "D"], num_objects: int) -> float:
    """The mean of precision at 101 recalls; `right` is ordered by descending score."""
    num_right = right.cumsum()
    precision = num_right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(num_right / num_objects, RECALLS)
    return float(np.append(envelope, 0)[np.minimum(reached, len(envelope))].mean())


@dataclass(frozen=True)
class ErrorKind:
    """How often something is wrong, and how much AP50 would rise without it."""

    name: str
    meaning: str
    count: int
    cost: float


MEANINGS = {
    Outcome.CLASSIFICATION: "on an object of another class",
    Outcome.LOCALISATION: "the right class, but the box overlaps its object too little (IoU 0.1 to 0.5)",
    Outcome.BOTH: "the wrong class and too little overlap",
    Outcome.DUPLICATE: "on an object that another detection has already found",
    Outcome.BACKGROUND: "where no object is annotated",
}
MISSED = "an object without a detection, not even one of the wrong class or with a poor box"


def count_errors(outcomes: Outcomes) -> list[ErrorKind]:
    """Every kind of error by itself: its number, and how much AP50 would rise if it were fixed."""
    before = ap50(outcomes)
    kinds = [ErrorKind(kind.name.lower(), meaning, int((outcomes.kinds == kind).sum()),
                       ap50(_fixed(outcomes, kind)) - before)
             for kind, meaning in MEANINGS.items()]
    missed = outcomes.missed
    return [*kinds, ErrorKind("missed", MISSED, int(missed.sum()),
                              ap50(outcomes, outcomes.counted & ~missed) - before)]


def _fixed(outcomes: Outcomes, kind: Outcome) -> Outcomes:
    """As if the detections of one kind had been corrected.

    One whose target no detection has found becomes right, the one with the highest score where there are several; all
    others of the kind are removed.
    """
    wrong = outcomes.kinds == kind
    aimed = np.flatnonzero(wrong & (outcomes.targets >= 0))
    aimed = aimed[~outcomes.found[outcomes.targets[aimed]]]
    aimed = aimed[np.argsort(-outcomes.scores[aimed], kind="stable")]
    _, best = np.unique(outcomes.targets[aimed], return_index=True)
    fixed = aimed[best]
    kinds, labels = outcomes.kinds.copy(), outcomes.labels.copy()
    kinds[fixed], labels[fixed] = Outcome.RIGHT, outcomes.object_labels[outcomes.targets[fixed]]
    return replace(outcomes, kinds=kinds, labels=labels).of(~wrong | (kinds == Outcome.RIGHT))
