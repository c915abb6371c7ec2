"""Predictions to detections: the best scores over queries and classes, in pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.structures import ImageSize, Predictions

if TYPE_CHECKING:
    import PIL.Image
    import supervision

    from deformable_detr.images import ImageSource


@dataclass(frozen=True)
class Detections:
    """Objects found in one image, best first, as NumPy arrays."""

    boxes: Float[np.ndarray, "T 4"]         # float32, xyxy in pixels of the upright image
    scores: Float[np.ndarray, "T"]          # float32, in [0, 1]
    labels: Int64[np.ndarray, "T"]          # class indices 0..K-1
    names: list[str]
    image_size: ImageSize                   # (height, width)

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> "Detections":
        """Those whose score is at least `threshold`."""
        return self._only(np.flatnonzero(self.scores >= threshold))

    def suppressed(self, threshold: float, top_k: int | None = None) -> "Detections":
        """Without those that overlap a better one of their class by an IoU above `threshold`; the `top_k` best."""
        from torchvision.ops import batched_nms

        boxes, scores, labels = map(torch.from_numpy, (self.boxes, self.scores, self.labels))
        return self._only(batched_nms(boxes, scores, labels, threshold)[:top_k].numpy())

    def _only(self, kept: Int64[np.ndarray, "kept"]) -> "Detections":
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept],
                          [self.names[index] for index in kept], self.image_size)

    def draw(self, image: "ImageSource") -> "PIL.Image.Image":
        """The upright image with boxes, names and scores drawn on it."""
        from deformable_detr.drawing import draw_boxes

        captions = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)]
        return draw_boxes(image, self.boxes, captions, self.labels)

    def to_dict(self, category_ids: Sequence[int] | None = None) -> dict[str, Any]:
        """Plain numbers for JSON; `label` is the class index, or its id where `category_ids` maps it."""
        height, width = self.image_size
        found = [{"label": int(category_ids[label] if category_ids else label), "name": name,
                  "score": round(float(score), 4), "box": [round(float(edge), 2) for edge in box]}
                 for box, score, label, name in zip(self.boxes, self.scores, self.labels, self.names, strict=True)]
        return {"width": width, "height": height, "detections": found}

    def to_supervision(self) -> "supervision.Detections":
        """The same as `supervision.Detections`; needs `pip install supervision`."""
        import supervision

        return supervision.Detections(xyxy=self.boxes, confidence=self.scores, class_id=self.labels,
                                      data={"class_name": np.array(self.names, dtype=str)})


def detections_of(predictions: Predictions, image_sizes: Sequence[ImageSize] | Tensor | np.ndarray, top_k: int,
                  names: Sequence[str] | None, nms_threshold: float) -> list[Detections]:
    """See `Predictions.detections`."""
    _, batch, num_queries, num_classes = predictions.logits.shape
    sizes = [(int(height), int(width)) for height, width in image_sizes]
    if len(sizes) != batch:
        raise ValueError(f"image_sizes: expected {batch} (height, width) pairs, got {len(sizes)}")
    if names is not None and len(names) != num_classes:
        raise ValueError(f"names: expected {num_classes} names, one a class, got {len(names)}")
    scores = predictions.logits[-1].float().sigmoid().flatten(1)
    num_candidates = top_k if nms_threshold == 1 else num_queries * num_classes
    scores, order = scores.topk(min(num_candidates, num_queries * num_classes), dim=1)
    boxes = cxcywh_to_xyxy(predictions.boxes[-1].float())
    boxes = boxes.gather(1, (order // num_classes)[..., None].expand(-1, -1, 4))
    boxes = boxes * boxes.new_tensor([(width, height, width, height) for height, width in sizes])[:, None]
    arrays = (tensor.detach().cpu().numpy() for tensor in (boxes, scores, order % num_classes))
    class_names = list(names) if names is not None else [str(index) for index in range(num_classes)]
    found = [Detections(box, score, label, [class_names[index] for index in label], size)
             for box, score, label, size in zip(*arrays, sizes, strict=True)]
    return found if nms_threshold == 1 else [detections.suppressed(nms_threshold, top_k) for detections in found]
