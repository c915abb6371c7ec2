"""Hidden states -> class logits and boxes. The only place that adds a box delta to a reference."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deformable_detr.boxes import inverse_sigmoid

PRIOR = 0.01   # probability of every class at the start (Focal Loss, section 3.3)


class Head(nn.Module):
    """A linear layer for the classes and three for the box.

    `size_bias` starts the logits of width and height: -2 for boxes small from the first, 0 where the reference
    is a box already.
    """

    def __init__(self, width: int, num_classes: int, size_bias: float) -> None:
        super().__init__()
        self.classify = nn.Linear(width, num_classes)
        self.locate = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                                    nn.Linear(width, 4))
        nn.init.constant_(self.classify.bias, -math.log((1 - PRIOR) / PRIOR))
        last: nn.Linear = self.locate[-1]  # type: ignore[assignment]
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([0, 0, size_bias, size_bias]))

    def forward(self, hidden: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q R"],
                ) -> tuple[Float[Tensor, "B Q K"], Float[Tensor, "B Q 4"]]:
        """Logits, and boxes cxcywh in [0, 1] moved from `reference` (points, R = 2, or boxes, R = 4, in [0, 1])."""
        return self.classify(hidden), self.move(hidden, inverse_sigmoid(reference.float()))

    def move(self, hidden: Float[Tensor, "B Q C"], start: Float[Tensor, "B Q R"]) -> Float[Tensor, "B Q 4"]:
        """Boxes cxcywh in [0, 1], moved from `start`, which is in inverse-sigmoid space (infinite stays 1)."""
        delta = self.locate(hidden).float()
        moved = delta[..., : start.shape[-1]] + start
        return torch.cat([moved, delta[..., start.shape[-1]:]], dim=-1).sigmoid()


class LayerAnswer(NamedTuple):
    """What is said behind a decoder layer, and what the next one begins with."""

    logits: Float[Tensor, "B Q K"]
    boxes: Float[Tensor, "B Q 4"]
    reference: Float[Tensor, "B Q R"]   # where the next layer looks
    start: Float[Tensor, "B Q R"]       # from where it moves its boxes: the same numbers, perhaps with a gradient


class SharedHead(nn.Module):
    """One head for all decoder layers; each layer starts from the queries' own reference."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.shared = Head(width, num_classes, size_bias=-2)

    def forward(self, layer: int, hidden: Float[Tensor, "B Q C"], start: Float[Tensor, "B Q R"],  # noqa: ARG002
                ) -> LayerAnswer:
        logits, boxes = self.shared(hidden, start)
        return LayerAnswer(logits, boxes, reference=start, start=start)


class RefiningHeads(nn.Module):
    """A head a layer; each layer starts from the boxes of the layer before (iterative refinement, section 4.3).

    With `look_forward_twice` the gradient of a layer's boxes reaches the head of the layer before, which is one
    layer back and no farther (DINO, arXiv 2203.03605, section 3.5). The boxes are the same either way.
    """

    def __init__(self, width: int, num_classes: int, num_layers: int, references_are_boxes: bool,
                 look_forward_twice: bool = False) -> None:
        super().__init__()
        self.look_forward_twice = look_forward_twice
        size_biases = [-2.0 if layer == 0 and not references_are_boxes else 0.0 for layer in range(num_layers)]
        self.layers = nn.ModuleList([Head(width, num_classes, bias) for bias in size_biases])

    def forward(self, layer: int, hidden: Float[Tensor, "B Q C"], start: Float[Tensor, "B Q R"]) -> LayerAnswer:
        head: Head = self.layers[layer]  # type: ignore[assignment]
        logits, boxes = head(hidden, start)
        reference = boxes.detach()
        if not self.look_forward_twice:
            return LayerAnswer(logits, boxes, reference, start=reference)
        # The same boxes once more, tied to this layer's delta alone.
        return LayerAnswer(logits, boxes, reference, start=head.move(hidden, inverse_sigmoid(start.detach())))
