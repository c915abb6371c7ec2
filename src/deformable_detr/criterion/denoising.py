"""Truth with noise on it, to be told apart and put right: a lesson that needs no matching.

DETR's queries change their objects from step to step while the matching still wavers. A box near an object has no
such doubt: it is that object's (DN-DETR, arXiv 2203.01305). One farther off must be recognised as nothing, so that
of several queries at an object the nearest learns to win (DINO, arXiv 2203.03605, section 3.3).

Neither paper's embedding of noisy labels is here. It gives the decoder a word that it never hears when it detects;
without it an extra query is made from its box exactly as a proposal's is, and the class must be seen in the image.
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
NEAR = (0.0, 0.4)      # of what must be put right
FAR = (1.0, 2.0)       # of what must be recognised as nothing

NOTHING = -1


@tensor_structure
class Denoising:
    """Extra queries, and what is to be answered to each."""

    queries: ExtraQueries
    objects: Int64[Tensor, "B E"]       # which of the image's objects; NOTHING: none of them
    weights: Float[Tensor, "B E"]       # in the loss: one over the image's groups; 0 for an empty slot

    def image(self, index: int) -> "Denoising":
        """The part of one image, as a batch of one."""
        rows = slice(index, index + 1)
        return Denoising(ExtraQueries(self.queries.boxes[rows], self.queries.groups[rows]), self.objects[rows],
                         self.weights[rows])

    def matches(self, targets: Sequence[Target], num_layers: int) -> Matches:
        """Which extra query answers for which object: in every layer the same."""
        image, query = (self.objects != NOTHING).nonzero().unbind(1)
        counts = torch.tensor([0, *(len(target.labels) for target in targets)], device=image.device)
        target = self.objects[image, query] + counts.cumsum(0)[image]
        layer = torch.arange(num_layers, device=image.device).repeat_interleave(len(image))
        return Matches(layer, *(index.repeat(num_layers) for index in (image, query, target)))


def build_denoising(targets: Sequence[Target], num_queries: int) -> Denoising:
    """Noisy boxes for a batch, `num_queries` slots an image; chance is torch's generator on the CPU.

    In a group each object has one query near to it and one farther off. An image has as many groups as fit;
    where not even one does, a random part of its objects is asked about. The number of slots never changes, as a
    new shape would cost time, and no image's queries depend on its neighbours in the batch.
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
    """Boxes, cxcywh in [0, 1], whose edges have moved: near, then far ones of each group."""
    least, most = torch.tensor([NEAR, FAR]).T[..., None, None]
    shape = num_groups, 2, *boxes.shape
    distance = least + (most - least) * torch.rand(shape)
    direction = torch.randint(2, shape) * 2 - 1
    corners = cxcywh_to_xyxy(boxes) + direction * distance * boxes[:, 2:].repeat(1, 2) / 2
    centre, size = xyxy_to_cxcywh(corners.clamp(0, 1)).chunk(2, dim=-1)
    return torch.cat([centre, size.clamp(min=0)], dim=-1)   # edges that passed each other meet half-way
