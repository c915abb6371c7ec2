"""Which query is responsible for which object: the cheapest assignment (DETR, arXiv 2005.12872, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy, generalized_iou
from deformable_detr.criterion.class_costs import ClassCost, FocalCost
from deformable_detr.structures import Target


class NonFiniteError(ArithmeticError):
    """A cost, a loss or a gradient is NaN or infinite; names the image, where it is one image's."""

    def __init__(self, what: str, image_id: int | str | None = None) -> None:
        place = "" if image_id is None else f" for image {image_id!r}"
        super().__init__(f"{what} is not finite{place}: lower the learning rate, or train in float32")
        self.what, self.image_id = what, image_id

    def __reduce__(self) -> tuple[type["NonFiniteError"], tuple[str, int | str | None]]:
        return NonFiniteError, (self.what, self.image_id)   # it is sent from process to process


@dataclass(frozen=True)
class MatchingCost:
    """Weights of the three costs, by default Deformable DETR's; `epsilon` is that of `generalized_iou`."""

    classes: float = 2
    boxes: float = 5
    giou: float = 2
    class_cost: ClassCost = field(default_factory=FocalCost)
    epsilon: float = 0.0

    def __call__(self, logits: Float[Tensor, "*layers Q K"], boxes: Float[Tensor, "*layers Q 4"],
                 target: Target) -> Float[Tensor, "*layers Q T"]:
        """The cost of matching each query with each object of one image."""
        distance = (boxes[..., :, None, :] - target.boxes).abs().sum(-1)
        overlap = generalized_iou(cxcywh_to_xyxy(boxes)[..., :, None, :], cxcywh_to_xyxy(target.boxes),
                                  self.epsilon)
        return self.classes * self.class_cost(logits, target.labels) + self.boxes * distance - self.giou * overlap


@dataclass(frozen=True)
class Matches:
    """The matched pairs of all layers and images, as parallel index lists."""

    layer: Int64[Tensor, "pairs"]
    image: Int64[Tensor, "pairs"]
    query: Int64[Tensor, "pairs"]
    target: Int64[Tensor, "pairs"]   # into the targets of all images, one after the other

    def to(self, device: torch.device) -> "Matches":
        return Matches(*(index.to(device) for index in (self.layer, self.image, self.query, self.target)))


@torch.no_grad()
def match(logits: Float[Tensor, "layers B Q K"], boxes: Float[Tensor, "layers B Q 4"],
          targets: Sequence[Target], cost: MatchingCost) -> Matches:
    """Assign a query of its own to every object, in each layer.

    Raises NonFiniteError, which names the image, where a cost is NaN or infinite.
    """
    from scipy.optimize import linear_sum_assignment  # 0.2 s, and whoever only detects needs none of it

    # Queries compete for objects of their own image only; all costs go to the CPU in one copy.
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
