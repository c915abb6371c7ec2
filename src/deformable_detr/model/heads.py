"""Hidden states -> class logits and boxes. The only place that adds a box delta to a reference."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deformable_detr.boxes import at_least_float32, inverse_sigmoid
from deformable_detr.model.feedforward import mlp

PRIOR = 0.01   # initial probability of every class (Focal Loss, arXiv 1708.02002, section 3.3)


class Head(nn.Module):
    """A linear layer for the class logits and three for the box.

    `epsilon` limits how far a reference at the edge of the image is from 0 or 1 before it is moved.
    """

    def __init__(self, width: int, num_logits: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.classify = nn.Linear(width, num_logits)
        self.locate = mlp(width, width, width, 4)

    def forward(self, hidden: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q R"],
                ) -> tuple[Float[Tensor, "B Q K"], Float[Tensor, "B Q 4"]]:
        """Logits, and boxes cxcywh in [0, 1] moved from `reference`: nothing, points or boxes (R = 0, 2, 4)."""
        return self.classify(hidden), self.moved(hidden, reference)

    def moved(self, hidden: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q R"]) -> Float[Tensor, "B Q 4"]:
        """Boxes cxcywh in [0, 1], moved from `reference` in [0, 1]."""
        return self.move(hidden, inverse_sigmoid(at_least_float32(reference), self.epsilon))

    def move(self, hidden: Float[Tensor, "B Q C"], start: Float[Tensor, "B Q R"]) -> Float[Tensor, "B Q 4"]:
        """Boxes cxcywh in [0, 1], moved from `start` in inverse-sigmoid space; an infinite start stays 1."""
        delta = at_least_float32(self.locate(hidden))
        moved = delta[..., : start.shape[-1]] + start
        return torch.cat([moved, delta[..., start.shape[-1]:]], dim=-1).sigmoid()


def focal_head(width: int, num_classes: int, size_bias: float = 0, epsilon: float = 1e-5) -> Head:
    """A head that starts as the focal loss wants it: all classes rare, boxes where the reference is.

    `size_bias` initialises the logits of width and height: -2 for small boxes at first, 0 where the reference is
    already a box.
    """
    head = Head(width, num_classes, epsilon)
    nn.init.constant_(head.classify.bias, -math.log((1 - PRIOR) / PRIOR))
    last: nn.Linear = head.locate[-1]  # type: ignore[assignment]
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([0, 0, size_bias, size_bias]))
    return head


class SharedHead(nn.Module):
    """One head for all decoder layers."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.shared = head

    def of_layer(self, layer: int) -> Head:  # noqa: ARG002
        return self.shared


class LayerHeads(nn.Module):
    """A head for each decoder layer."""

    def __init__(self, heads: Sequence[Head]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(heads)

    def of_layer(self, layer: int) -> Head:
        return self.layers[layer]  # type: ignore[return-value]
