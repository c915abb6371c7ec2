"""What a file in fewer bits finds beside PyTorch in float32: the same objects, and how far their boxes moved."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from deformable_detr.detections import Detections
from deformable_detr.export.cases import Case
from deformable_detr.export.graph import RAW_OUTPUTS, DetectorGraph
from deformable_detr.export.sessions import Session
from deformable_detr.structures import Predictions

SEEN = 0.3          # the score above which a detection of PyTorch counts
LOWEST = 0.1        # ... and that from which the file may have it
SAME = 0.5          # the IoU above which a box is the same


@dataclass(frozen=True)
class Agreement:
    """Of the detections with a score above 0.3 in float32: those that the file has too, and their boxes' edges."""

    expected: int
    found: int
    mean: float         # pixels of the original image that an edge moved
    largest: float

    def __str__(self) -> str:
        return (f"of {self.expected} detections above {SEEN:g} it has {self.found} (same class, IoU above {SAME:g}); "
                f"edges of their boxes moved by {self.mean:.2f} pixels in the mean, {self.largest:.1f} at most")


def agreement(session: Session, graph: DetectorGraph, cases: Iterable[Case]) -> Agreement:
    """All batches through both.

    Raises ValueError if PyTorch finds nothing, or the file something that is not finite.
    """
    expected, shifts = 0, [np.zeros(0, np.float32)]
    for case in cases:
        with torch.no_grad():
            ours = graph(case.images, case.sizes)[:2]
        arrays = session.run(case.images.numpy(), case.sizes.numpy())
        theirs = [torch.from_numpy(np.array(arrays[name])) for name in RAW_OUTPUTS]
        for one, other in zip(_detections(ours, graph, case), _detections(theirs, graph, case), strict=True):
            seen = one.above(SEEN)
            expected += len(seen)
            shifts.append(_shifts(seen, other.above(LOWEST)))
    if not expected:
        raise ValueError(f"pictures: expected some in which the model finds an object with a score above {SEEN:g}, "
                         "to compare on; got none")
    moved = np.concatenate(shifts)
    mean, largest = (float(moved.mean()), float(moved.max())) if moved.size else (0.0, 0.0)
    return Agreement(expected, len(moved) // 4, mean, largest)


def _detections(outputs: "tuple[torch.Tensor, ...] | list[torch.Tensor]", graph: DetectorGraph,
                case: Case) -> list[Detections]:
    logits, boxes = outputs
    no_object = graph.model.decoder.no_object
    return Predictions(logits[None].float(), boxes[None].float(), no_object=no_object).detections(case.originals)


def _shifts(seen: Detections, others: Detections) -> np.ndarray:
    """The pixels by which the four edges of each box in `seen` moved, for those that are among `others`."""
    if not len(seen) or not len(others):
        return np.zeros(0, np.float32)
    overlaps = box_iou(torch.from_numpy(seen.boxes), torch.from_numpy(others.boxes)).numpy()
    overlaps = np.where(seen.labels[:, None] == others.labels, overlaps, 0)
    nearest = overlaps.argmax(1)
    is_same = overlaps.max(1) > SAME
    return np.abs(seen.boxes - others.boxes[nearest])[is_same].ravel()
