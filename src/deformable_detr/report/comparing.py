"""Detections beside the truth, image by image: which overlap how much, and which found what."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from deformable_detr.evaluation import CocoEvaluator

IOU = 0.5    # from here on an object counts as found


@dataclass(frozen=True)
class Comparison:
    """One image: its D detections, best first, and its T objects. Boxes are x, y, width, height in pixels."""

    image: int                            # index into the annotations' images
    boxes: Float[np.ndarray, "D 4"]         # float64
    scores: Float[np.ndarray, "D"]
    labels: Int[np.ndarray, "D"]            # classes of the data set
    rows: Int[np.ndarray, "T"]              # the objects' rows in the annotations
    objects: Float[np.ndarray, "T 4"]
    object_labels: Int[np.ndarray, "T"]
    crowd: Bool[np.ndarray, "T"]

    def above(self, threshold: float) -> "Comparison":
        """The same without detections below a score."""
        keep = self.scores >= threshold
        return Comparison(self.image, self.boxes[keep], self.scores[keep], self.labels[keep], self.rows,
                          self.objects, self.object_labels, self.crowd)

    @property
    def same_class(self) -> Bool[np.ndarray, "D T"]:
        """Which detections and objects are of one class."""
        return self.labels[:, None] == self.object_labels

    def overlaps(self) -> Float[np.ndarray, "D T"]:
        """IoU of each with each; with a crowd the share of the detection that lies in it, as COCO has it."""
        first = np.maximum(self.boxes[:, None, :2], self.objects[:, :2])
        last = np.minimum((self.boxes[:, :2] + self.boxes[:, 2:])[:, None], self.objects[:, :2] + self.objects[:, 2:])
        common = (last - first).clip(0).prod(axis=2)
        area, object_area = self.boxes[:, 2:].prod(axis=1)[:, None], self.objects[:, 2:].prod(axis=1)
        union = np.where(self.crowd, area, area + object_area - common)
        return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def compare(evaluator: CocoEvaluator, images: Int[np.ndarray, "P"] | None = None) -> Iterator[Comparison]:
    """The images in the order of their ids, in which COCO counts equal scores; or those asked for, in that order.

    Detections of classes that the data set does not know are left out. One image at a time is held.
    """
    truth = evaluator.annotations
    if images is None:
        images = np.argsort(truth.images.ids, kind="stable")
    by_image = np.argsort(truth.image_index, kind="stable")
    starts = np.searchsorted(truth.image_index[by_image], np.arange(len(truth.images) + 1))
    class_of = np.array([-1 if known is None else known for known in evaluator.match.classes])
    for image in images.tolist():
        rows = by_image[starts[image]:starts[image + 1]]
        boxes, scores, labels = _detected(evaluator, truth.images[image].id, class_of)
        yield Comparison(image, boxes, scores, labels, rows, truth.boxes[rows], truth.labels[rows], truth.crowd[rows])


def _detected(evaluator: CocoEvaluator, image_id: int, class_of: Int[np.ndarray, "K"],
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (D, 4), scores (D,) and the data set's labels (D,), best first."""
    found = evaluator.found.get(image_id)
    if found is None:
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    labels = class_of[found.labels]
    order = np.argsort(-found.scores, kind="stable")
    order = order[labels[order] >= 0]
    boxes = np.asarray(found.boxes, np.float64).reshape(-1, 4)[order]
    boxes[:, 2:] -= boxes[:, :2]
    return boxes, found.scores[order], labels[order]


def match(comparison: Comparison, overlaps: Float[np.ndarray, "D T"]) -> Int[np.ndarray, "D"]:
    """Which object of its class each detection finds, as COCO matches; -1 for none.

    The best detection chooses first, the nearest object that is left; a crowd takes any number of those for which
    none is left.
    """
    crowd = comparison.crowd
    close = np.where(comparison.same_class & (overlaps >= IOU), overlaps, 0)
    found = np.full(len(overlaps), -1)
    left = np.ones(len(crowd), bool)
    for detection in np.flatnonzero(close.any(axis=1)):
        candidates = close[detection] * (left & ~crowd)
        if not candidates.any():
            candidates = close[detection] * crowd
        if candidates.any():
            # Of equally near objects the last, as COCO's loop has it.
            chosen = len(candidates) - 1 - candidates[::-1].argmax()
            found[detection], left[chosen] = chosen, False
    return found
