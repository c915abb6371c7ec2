"""What the class logits should be: each class is one answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy, intersection_and_union
from deformable_detr.criterion.matching import Matches

SCORE_SHARE = 0.25   # of the score in a soft target


@dataclass(frozen=True)
class Counts:
    """How large a step of the optimizer is, over all its batches, in the mean of all processes."""

    boxes: Float[Tensor, ""]        # annotated objects
    images: Float[Tensor, ""]


class Answers(NamedTuple):
    """What some layers predicted, and which of it was matched with what."""

    logits: Float[Tensor, "layers B Q K"]
    boxes: Float[Tensor, "layers B Q 4"]
    matches: Matches
    labels: Int64[Tensor, "T"]              # of all images, one after the other
    truth: Float[Tensor, "T 4"]
    step: Counts
    weights: Float[Tensor, "B Q"] | None    # of each query in the sum; None: all count the same

    @property
    def divisor(self) -> Float[Tensor, ""]:
        """The number of boxes in the step, but at least 1: what losses are divided by."""
        return self.step.boxes.clamp(min=1)

    def matched(self) -> tuple[Tensor, ...]:
        """The index of each matched query's logit for its object's class."""
        return self.matches.layer, self.matches.image, self.matches.query, self.labels[self.matches.target]

    def summed(self, losses: Float[Tensor, "layers B Q K"]) -> Float[Tensor, "layers"]:
        """The weighted sum over queries and classes in each layer, divided by the number of boxes."""
        weighted = losses if self.weights is None else losses * self.weights[..., None]
        return weighted.flatten(1).sum(1) / self.divisor


ClassLoss = Callable[[Answers], Tensor]     # a loss for each layer


@dataclass(frozen=True)
class FocalLoss:
    """A matched query's score should be 1, all others 0; what is easy counts little (arXiv 1708.02002, equation 5)."""

    alpha: float = 0.25
    gamma: float = 2

    def __call__(self, answers: Answers) -> Float[Tensor, "layers"]:
        wanted = torch.zeros_like(answers.logits)
        wanted[answers.matched()] = 1
        probability = answers.logits.sigmoid()
        miss = torch.where(wanted > 0, 1 - probability, probability)
        balance = torch.where(wanted > 0, self.alpha, 1 - self.alpha)
        entropy = F.binary_cross_entropy_with_logits(answers.logits, wanted, reduction="none")
        return answers.summed(balance * miss**self.gamma * entropy)


@dataclass(frozen=True)
class QualityLoss:
    """A matched query's score should grow with how well its box fits.

    The wanted score is the geometric mean of score and IoU, in which the IoU counts three times, so that a query which
    is sure of its class is not held back while boxes are still bad (Align-DETR, arXiv 2304.07527, section 3.2).
    Without a match it is 0, and confident mistakes count most, as in the focal loss.
    """

    gamma: float = 2

    def __call__(self, answers: Answers) -> Float[Tensor, "layers"]:
        probability = answers.logits.sigmoid()
        matched = answers.matched()
        wanted = torch.zeros_like(answers.logits)
        quality = matched_iou(answers.boxes, answers.matches, answers.truth)
        wanted[matched] = probability[matched].detach()**SCORE_SHARE * quality**(1 - SCORE_SHARE)
        balance = probability**self.gamma
        balance = balance.index_put(matched, balance.new_ones(()))
        entropy = F.binary_cross_entropy_with_logits(answers.logits, wanted, reduction="none")
        return answers.summed(balance * entropy)


@dataclass(frozen=True)
class SoftmaxLoss:
    """Cross-entropy over the classes and "no object", the last logit (DETR, arXiv 2005.12872, section 3.1).

    "No object" counts `no_object_weight`, since most queries have none. The sum is divided by the weights of all
    queries in the step, not by the number of boxes.
    """

    no_object_weight: float = 0.1

    def __call__(self, answers: Answers) -> Float[Tensor, "layers"]:
        no_object = answers.logits.shape[-1] - 1
        layer, image, query, label = answers.matched()
        wanted = torch.full(answers.logits.shape[:-1], no_object, device=answers.logits.device)
        wanted[layer, image, query] = label
        weights = torch.where(wanted == no_object, self.no_object_weight, 1.0)
        entropy = F.cross_entropy(answers.logits.flatten(0, 2), wanted.flatten(), reduction="none").view_as(wanted)
        return (weights * entropy).flatten(1).sum(1) / self._all_weights(answers, weights.flatten(1).sum(1))

    def _all_weights(self, answers: Answers, of_batch: Float[Tensor, "layers"]) -> Float[Tensor, "layers"]:
        """The weights of all queries in the step: those of this batch, and what its other images and objects add."""
        _, images, queries, _ = answers.logits.shape
        other_images, other_boxes = answers.step.images - images, answers.step.boxes - len(answers.labels)
        least = self.no_object_weight * queries
        others = least * other_images + (1 - self.no_object_weight) * other_boxes
        return (of_batch + others).clamp(min=least * answers.step.images)   # more objects than queries count as none


@torch.no_grad()
def matched_iou(boxes: Float[Tensor, "layers B Q 4"], matches: Matches,
                truth: Float[Tensor, "T 4"]) -> Float[Tensor, "pairs"]:
    """Intersection over union of each matched box with its object's."""
    found = boxes[matches.layer, matches.image, matches.query]
    intersection, union = intersection_and_union(cxcywh_to_xyxy(found), cxcywh_to_xyxy(truth[matches.target]))
    return intersection / union
