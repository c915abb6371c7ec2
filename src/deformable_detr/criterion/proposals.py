"""Which of the encoder's proposals are trained as what: each function is one answer."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from deformable_detr.structures import Proposals, Target


class Task(NamedTuple):
    """Proposals beside what they should be, and the ending of the published names of their losses."""

    ending: str
    logits: Float[Tensor, "B N K"]
    boxes: Float[Tensor, "B N 4"]
    targets: list[Target]


ProposalTask = Callable[[Proposals, list[Target]], Task]


def objectness(proposals: Proposals, targets: list[Target]) -> Task:
    """Every token's proposal only tells objects from background: class 0 stands for all (Deformable DETR, A.3)."""
    objects = [Target(torch.zeros_like(target.labels), target.boxes, target.image_id) for target in targets]
    return Task("_enc", proposals.logits, proposals.boxes, objects)


def chosen_classes(proposals: Proposals, targets: list[Target]) -> Task:
    """The chosen proposals have the classes of their objects (DINO's code)."""
    assert proposals.chosen is not None
    chosen = proposals.chosen[..., None]
    logits, boxes = (values.gather(1, chosen.expand(-1, -1, values.shape[-1]))
                     for values in (proposals.logits, proposals.boxes))
    return Task("_interm", logits, boxes, targets)
