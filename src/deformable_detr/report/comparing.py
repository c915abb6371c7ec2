"""Detections and annotated objects of each image: how much they overlap, and which detection finds which object."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from deformable_detr.evaluation import CocoEvaluator

MIN_IOU = 0.5    # of a detection that finds an object


@dataclass(frozen=True)
class Comparison:
    """One image: its D detections, best first, and its T objects. Boxes are x, y, width, height in pixels."""

    image: int                              # index into the annotations' images
    boxes: Float[np.ndarray, "D 4"]         # float64
    scores: Float[np.ndarray, "D"]
    labels: Int[np.ndarray, "D"]            # classes of the data set
    rows: Int[np.ndarray, "T"]              # of the objects, in the annotations
    objects: Float[np.ndarray, "T 4"]
    object_labels: Int[np.ndarray, "T"]
    crowd: Bool[np.ndarray, "T"]

    def above(self, threshold: float) -> "Comparison":
        """Without the detections whose score is below a threshold."""
        kept = self.scores >= threshold
        return replace(self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept])

    @property
    def same_class(self) -> Bool[np.ndarray, "D T"]:
        """Which detections and objects have the same class."""
        return self.labels[:, None] == self.object_labels

    def overlaps(self) -> Float[np.ndarray, "D T"]:
        """IoU of every detection with every object; for a crowd, the share of the detection inside it, as in COCO."""
        first = np.maximum(self.boxes[:, None, :2], self.objects[:, :2])
        last = np.minimum((self.boxes[:, :2] + self.boxes[:, 2:])[:, None], self.objects[:, :2] + self.objects[:, 2:])
        common = (last - first).clip(0).prod(axis=2)
        area, object_area = self.boxes[:, 2:].prod(axis=1)[:, None], self.objects[:, 2:].prod(axis=1)
        union = np.where(self.crowd, area, area + object_area - common)
        return np.divide(common, union, out=np.zeros_like(common), where=union > 0)

    def found_objects(self, overlaps: Float[np.ndarray, "D T"]) -> Int[np.ndarray, "D"]:
        """The object of its class that each detection finds, matched as in COCO; -1 for none.

        Detections choose in the order of their scores, each the object that it overlaps most among those left. One
        for which none is left may be in a crowd, which takes any number of detections.
        """
        close = np.where(self.same_class & (overlaps >= MIN_IOU), overlaps, 0)
        found = np.full(len(overlaps), -1)
        left = np.ones(len(self.crowd), bool)
        for detection in np.flatnonzero(close.any(axis=1)):
            candidates = close[detection] * (left & ~self.crowd)
            if not candidates.any():
                candidates = close[detection] * self.crowd
            if candidates.any():
                # The last of equals, as in COCO's loop.
                chosen = len(candidates) - 1 - candidates[::-1].argmax()
                found[detection], left[chosen] = chosen, False
        return found


def compare(evaluator: CocoEvaluator, images: Int[np.ndarray, "P"] | None = None) -> Iterator[Comparison]:
    """The images of these indices one by one; by default all, by ascending id, as COCO orders equal scores.

    Detections of classes that are not in the data set are left out.
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
