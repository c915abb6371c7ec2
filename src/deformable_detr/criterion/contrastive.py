"""DINO's denoising queries: noisy boxes with perhaps noisy labels (arXiv 2203.03605, section 3.3).

Each group holds for every object one query near it, which must find the object, and one farther off, which must find
nothing. Unlike the queries of `denoising.py`, they claim a class, which is wrong at times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from deformable_detr.criterion.denoising import NOTHING, Denoising
from deformable_detr.structures import ExtraQueries, Target

LABEL_NOISE = 0.25      # share of labels that are replaced: half of the published label_noise_ratio
EPSILON = 1e-3          # how close the sides of a noisy box may come to 0 or 1
UNUSED = -1


@dataclass(frozen=True)
class Noise:
    """What chance decides; a row for each of 2 x groups repetitions (near and far in turn) of all objects."""

    replaced: Float[Tensor, "K"]        # in [0, 1); a label is replaced where it is below LABEL_NOISE
    labels: Int64[Tensor, "K"]          # the classes that replace them
    signs: Float[Tensor, "K 4"]         # -1 or 1: which way each edge of a box moves
    shares: Float[Tensor, "K 4"]        # in [0, 1): how far, in halves of width and height; 1 more for the far ones

    @classmethod
    def drawn(cls, count: int, num_classes: int) -> "Noise":
        """From torch's generator on the CPU."""
        return cls(torch.rand(count), torch.randint(num_classes, (count,)),
                   torch.randint(2, (count, 4)) * 2.0 - 1, torch.rand(count, 4))


def contrastive_denoising(targets: Sequence[Target], num_queries: int, num_classes: int,
                          noise: Noise | None = None) -> Denoising | None:
    """Noisy queries for a batch: as many groups as fit into `num_queries`, but at least one; None without objects.

    A group has two slots for each object of the image that has the most; slots that an image does not need stay empty,
    but count as nothing, as published.
    """
    most = max(len(target.labels) for target in targets)
    if most == 0:
        return None
    num_groups = max(1, num_queries // (2 * most))
    total = sum(len(target.labels) for target in targets)
    noise = noise or Noise.drawn(2 * num_groups * total, num_classes)
    boxes = noisy_boxes(torch.cat([target.boxes for target in targets]).cpu(), noise)
    true_labels = torch.cat([target.labels for target in targets]).cpu().repeat(2 * num_groups)
    labels = torch.where(noise.replaced < LABEL_NOISE, noise.labels, true_labels)

    shape = len(targets), num_groups, 2, most
    slot_boxes = torch.full((*shape, 4), 0.5)
    slot_labels, objects = torch.full(shape, UNUSED), torch.full(shape, NOTHING)
    first = 0
    for index, target in enumerate(targets):
        count = len(target.labels)
        rows = (torch.arange(2 * num_groups)[:, None] * total + first + torch.arange(count)).view(num_groups, 2, count)
        slot_boxes[index, :, :, :count] = boxes[rows]
        slot_labels[index, :, :, :count] = labels[rows]
        objects[index, :, 0, :count] = torch.arange(count)
        first += count
    groups = torch.arange(1, num_groups + 1).view(1, -1, 1, 1).expand(shape).flatten(1)
    queries = ExtraQueries(slot_boxes.flatten(1, 3), groups, slot_labels.flatten(1))
    return Denoising(queries, objects.flatten(1), torch.full(groups.shape, 1 / num_groups))


def noisy_boxes(boxes: Float[Tensor, "T 4"], noise: Noise) -> Float[Tensor, "K 4"]:
    """Boxes, cxcywh in [0, 1], repeated near and far in turn, whose edges have moved."""
    repetitions = len(noise.shares) // len(boxes)
    repeated = boxes.repeat(repetitions, 1)
    far = (torch.arange(repetitions) % 2).repeat_interleave(len(boxes))[:, None]
    half = repeated[:, 2:].repeat(1, 2) / 2
    corners = (cxcywh_to_xyxy(repeated) + noise.signs * (noise.shares + far) * half).clamp(0, 1)
    # Edges that have passed each other give a negative side; published as well, the sigmoid's bounds make it small.
    return inverse_sigmoid(xyxy_to_cxcywh(corners), EPSILON).sigmoid()
