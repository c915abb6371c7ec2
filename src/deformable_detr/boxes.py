"""Box formats and overlaps. A box is cxcywh (centre, width, height) or xyxy (two corners)."""

import torch
from jaxtyping import Float
from torch import Tensor

Boxes = Float[Tensor, "*shape 4"]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32: places and boxes need more than its 8 or 11 bits. Float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


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


def generalized_iou(boxes: Float[Tensor, "*a 4"], others: Float[Tensor, "*b 4"],
                    epsilon: float = 0.0) -> Float[Tensor, "*c"]:
    """Generalised intersection over union of xyxy boxes, in [-1, 1] (Rezatofighi et al., 2019).

    `epsilon` is added to the areas that are divided by, as the papers after DETR do.

    Shapes broadcast: (T, 4) with (T, 4) compares pairs, (Q, 1, 4) with (T, 4) every box with every other.
    Two boxes without area at the same place give NaN (0/0).
    """
    intersection, union = intersection_and_union(boxes, others)
    hull = (torch.maximum(boxes[..., 2:], others[..., 2:])
            - torch.minimum(boxes[..., :2], others[..., :2])).clamp(min=0)
    enclosing = hull.prod(-1)
    return intersection / (union + epsilon) - (enclosing - union) / (enclosing + epsilon)


def intersection_and_union(boxes: Float[Tensor, "*a 4"],
                           others: Float[Tensor, "*b 4"]) -> tuple[Float[Tensor, "*c"], Float[Tensor, "*c"]]:
    """The areas of the intersections and unions of xyxy boxes; shapes broadcast."""
    overlap = (torch.minimum(boxes[..., 2:], others[..., 2:])
               - torch.maximum(boxes[..., :2], others[..., :2])).clamp(min=0)
    intersection = overlap.prod(-1)
    return intersection, area(boxes) + area(others) - intersection


def inverse_sigmoid(x: Float[Tensor, "*shape"], eps: float = 1e-5) -> Float[Tensor, "*shape"]:
    """The number whose sigmoid is x, for x in [0, 1]; x and 1 - x are clamped to at least `eps`."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
