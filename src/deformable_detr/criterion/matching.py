"""Which query answers for which object: the cheapest one-to-one assignment (DETR, arXiv 2005.12872, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy, generalized_iou
from deformable_detr.structures import Target


class NonFiniteError(ArithmeticError):
    """A cost or a loss is NaN or infinite; names the image."""

    def __init__(self, what: str, image_id: int | str | None) -> None:
        super().__init__(f"{what} is not finite for image {image_id!r}: lower the learning rate, or train in float32")
        self.what, self.image_id = what, image_id


@dataclass(frozen=True)
class MatchingCost:
    """Weights of the three costs, the published ones by default, and the focal loss's constants."""

    classes: float = 2
    boxes: float = 5
    giou: float = 2
    alpha: float = 0.25
    gamma: float = 2

    def __call__(self, logits: Float[Tensor, "*layers Q K"], boxes: Float[Tensor, "*layers Q 4"],
                 target: Target) -> Float[Tensor, "*layers Q T"]:
        """Cost of each query for each object of one image."""
        probability = logits[..., target.labels].sigmoid()
        negative = (1 - self.alpha) * probability**self.gamma * -(1 - probability + 1e-8).log()
        positive = self.alpha * (1 - probability)**self.gamma * -(probability + 1e-8).log()
        distance = (boxes[..., :, None, :] - target.boxes).abs().sum(-1)
        overlap = generalized_iou(cxcywh_to_xyxy(boxes)[..., :, None, :], cxcywh_to_xyxy(target.boxes))
        return self.classes * (positive - negative) + self.boxes * distance - self.giou * overlap


@dataclass(frozen=True)
class Matches:
    """The matched pairs of all layers and images, as parallel index lists."""

    layer: Int64[Tensor, "pairs"]
    image: Int64[Tensor, "pairs"]
    query: Int64[Tensor, "pairs"]
    target: Int64[Tensor, "pairs"]   # into the targets of all images, one after the other

    def to(self, device: torch.device) -> "Matches":
        """The same on another device."""
        return Matches(*(index.to(device) for index in (self.layer, self.image, self.query, self.target)))


@torch.no_grad()
def match(logits: Float[Tensor, "layers B Q K"], boxes: Float[Tensor, "layers B Q 4"],
          targets: Sequence[Target], cost: MatchingCost) -> Matches:
    """Assign every object a query of its own, in each layer.

    Raises NonFiniteError, which names the image, where a cost is NaN or infinite.
    """
    # Costs within an image only, and one copy to the CPU for all layers and images.
    costs = [cost(logits[:, index], boxes[:, index], target) for index, target in enumerate(targets)]
    on_cpu = torch.cat([matrix.flatten() for matrix in costs]).cpu().numpy()
    rows: list[np.ndarray] = []
    start = first_target = 0
    for image, (matrix, target) in enumerate(zip(costs, targets, strict=True)):
        layers = on_cpu[start:start + matrix.numel()].reshape(matrix.shape)
        if not np.isfinite(layers).all():
            raise NonFiniteError("the matching cost", target.image_id)
        for layer, layer_costs in enumerate(layers):
            queries, objects = linear_sum_assignment(layer_costs)
            rows.append(np.stack([np.full_like(queries, layer), np.full_like(queries, image),
                                  queries, objects + first_target]))
        start += matrix.numel()
        first_target += len(target.labels)
    return Matches(*torch.from_numpy(np.concatenate(rows, axis=1))).to(logits.device)
