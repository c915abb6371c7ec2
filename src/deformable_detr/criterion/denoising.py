"""Denoising: extra queries that start from noisy ground-truth boxes, and need no matching.

Early in a training the matching assigns a query to another object in nearly every step. A box near an object is
unambiguous: its target is that object (DN-DETR, arXiv 2203.01305). A box farther off must be classified as background,
so that the nearest of several queries learns to win the object (DINO, arXiv 2203.03605, section 3.3).

Neither paper's embedding of noisy labels is used. It gives the decoder an input that it never gets when it detects;
without it an extra query is made from its box exactly as a proposal's is, and its class must be read from the image.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from deformable_detr.criterion.matching import Matches
from deformable_detr.structures import ExtraQueries, Target, tensor_structure

# How far the noise moves each edge of a box, in halves of its own width or height. Near is DN-DETR's: with DINO's
# 1.0 a small decoder learned hardly anything from it in some hundred steps.
NEAR = (0.0, 0.4)      # boxes to be corrected
FAR = (1.0, 2.0)       # boxes to be classified as background

NOTHING = -1           # instead of an object


@tensor_structure
class Denoising:
    """Extra queries and their targets."""

    queries: ExtraQueries
    objects: Int64[Tensor, "B E"]       # index of the image's object, or NOTHING
    weights: Float[Tensor, "B E"]       # in the loss: 1 / number of groups of the image; 0 for an empty slot

    def image(self, index: int) -> "Denoising":
        """The part of one image, as a batch of one."""
        rows = slice(index, index + 1)
        labels = None if self.queries.labels is None else self.queries.labels[rows]
        return Denoising(ExtraQueries(self.queries.boxes[rows], self.queries.groups[rows], labels), self.objects[rows],
                         self.weights[rows])

    def matches(self, targets: Sequence[Target], num_layers: int) -> Matches:
        """The extra query of each object, the same in every layer."""
        image, query = (self.objects != NOTHING).nonzero().unbind(1)
        counts = torch.tensor([0, *(len(target.labels) for target in targets)], device=image.device)
        target = self.objects[image, query] + counts.cumsum(0)[image]
        layer = torch.arange(num_layers, device=image.device).repeat_interleave(len(image))
        return Matches(layer, *(index.repeat(num_layers) for index in (image, query, target)))


def build_denoising(targets: Sequence[Target], num_queries: int) -> Denoising:
    """Noisy boxes for a batch, `num_queries` slots per image; random numbers come from torch's CPU generator.

    In a group each object has one query near it and one farther off. An image has as many groups as fit; if not even
    one does, a random part of its objects is used. The number of slots never changes, since a new shape would cost
    time, and an image's queries do not depend on the other images of the batch.
    """
    images = [_image(target, num_queries) for target in targets]
    boxes, groups, objects, weights = (torch.stack(parts) for parts in zip(*images, strict=True))
    return Denoising(ExtraQueries(boxes, groups), objects, weights)


def _image(target: Target, num_queries: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes (E, 4), groups, objects and weights (E,) of one image."""
    boxes = torch.full((num_queries, 4), 0.5)
    groups, objects = (torch.full((num_queries,), -1) for _ in range(2))
    weights = torch.zeros(num_queries)
    chosen = torch.randperm(len(target.labels))[:num_queries // 2]
    if len(chosen):
        num_groups = num_queries // (2 * len(chosen))
        used = num_groups * 2 * len(chosen)
        boxes[:used] = noisy(target.boxes[chosen].cpu(), num_groups).flatten(0, -2)
        groups[:used] = torch.arange(1, num_groups + 1).repeat_interleave(2 * len(chosen))
        objects[:used] = torch.stack([chosen, torch.full_like(chosen, NOTHING)]).flatten().repeat(num_groups)
        weights[:used] = 1 / num_groups
    return boxes, groups, objects, weights


def noisy(boxes: Float[Tensor, "T 4"], num_groups: int) -> Float[Tensor, "groups 2 T 4"]:
    """Boxes, cxcywh in [0, 1], with moved edges: of each group first the near ones, then the far ones."""
    least, most = torch.tensor([NEAR, FAR]).T[..., None, None]
    shape = num_groups, 2, *boxes.shape
    distance = least + (most - least) * torch.rand(shape)
    direction = torch.randint(2, shape) * 2 - 1
    corners = cxcywh_to_xyxy(boxes) + direction * distance * boxes[:, 2:].repeat(1, 2) / 2
    centre, size = xyxy_to_cxcywh(corners.clamp(0, 1)).chunk(2, dim=-1)
    return torch.cat([centre, size.clamp(min=0)], dim=-1)   # edges that passed each other meet half-way
