"""Box formats and overlaps. A box is cxcywh (centre, width, height) or xyxy (two corners)."""

import torch
from jaxtyping import Float
from torch import Tensor

Boxes = Float[Tensor, "*shape 4"]


def cxcywh_to_xyxy(boxes: Boxes) -> Boxes:
    """Centre and size to the top left and the bottom right corner, in the same unit."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def xyxy_to_cxcywh(boxes: Boxes) -> Boxes:
    """Two corners to centre and size, in the same unit."""
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + second) / 2, second - first], dim=-1)


def area(boxes: Boxes) -> Float[Tensor, "*shape"]:
    """Area of xyxy boxes."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def generalized_iou(boxes: Float[Tensor, "*a 4"], others: Float[Tensor, "*b 4"]) -> Float[Tensor, "*c"]:
    """Generalised intersection over union of xyxy boxes, in [-1, 1] (Rezatofighi et al., 2019).

    Shapes broadcast: (T, 4) with (T, 4) compares in pairs, (Q, 1, 4) with (T, 4) each with each.
    Two boxes without area at the same place give NaN, since 0/0 has no answer.
    """
    intersection, union = intersection_and_union(boxes, others)
    hull = (torch.maximum(boxes[..., 2:], others[..., 2:])
            - torch.minimum(boxes[..., :2], others[..., :2])).clamp(min=0)
    enclosing = hull.prod(-1)
    return intersection / union - (enclosing - union) / enclosing


def intersection_and_union(boxes: Float[Tensor, "*a 4"],
                           others: Float[Tensor, "*b 4"]) -> tuple[Float[Tensor, "*c"], Float[Tensor, "*c"]]:
    """Areas that xyxy boxes share, and that they cover together; shapes broadcast."""
    overlap = (torch.minimum(boxes[..., 2:], others[..., 2:])
               - torch.maximum(boxes[..., :2], others[..., :2])).clamp(min=0)
    intersection = overlap.prod(-1)
    return intersection, area(boxes) + area(others) - intersection


def inverse_sigmoid(x: Float[Tensor, "*shape"], eps: float = 1e-5) -> Float[Tensor, "*shape"]:
    """The number whose sigmoid is x, for x in [0, 1]; x and 1 - x are held at `eps` or above."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
