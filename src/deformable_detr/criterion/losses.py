"""Predictions and targets -> one number to make smaller (paper, appendix A.3; DETR, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy, generalized_iou, intersection_and_union
from deformable_detr.criterion.denoising import Denoising
from deformable_detr.criterion.matching import Matches, MatchingCost, match
from deformable_detr.structures import Predictions, Proposals, Target, to_device

SCORE_SHARE = 0.25   # of the score in a soft target


@dataclass(frozen=True)
class Losses:
    """The weighted sum, and its unweighted parts under their published names.

    `loss_ce`, `loss_bbox`, `loss_giou` are the last layer's; `_0`, `_1`, ... those of the layers before; `_enc`
    those of the two-stage proposals; `_dn`, `_dn_0`, `_dn_1`, ... those of the denoising.
    """

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class SetLoss:
    """Matches queries with objects, layer by layer, then adds focal, L1 and GIoU losses.

    The weights are those of the sum and of the matching alike. Everything is computed in float32, whatever
    the autocast around it: in half precision 1 - p + 1e-8 underflows and costs become infinite.

    With `proposal_repeats` so many proposals are matched with every object (H-DETR, arXiv 2207.13080), which
    teaches the encoder as many times as much; their losses are divided by it. The best proposals then hold several
    of each object, for which there must be queries enough.

    `class_target` says what a matched query's score should be: "hard", 1; or "iou", which grows with how well
    its box fits, so that the best boxes come first (see `quality_loss`). Proposals are always "hard".
    """

    class_weight: float = 2
    box_weight: float = 5
    giou_weight: float = 2
    alpha: float = 0.25
    gamma: float = 2
    proposal_repeats: int = 1
    class_target: Literal["hard", "iou"] = "hard"

    def __call__(self, predictions: Predictions, targets: Sequence[Target],
                 num_boxes: Float[Tensor, ""] | None = None, denoising: Denoising | None = None) -> Losses:
        """The losses of a batch, divided by `num_boxes`: by default what `count_boxes` says of its targets.

        `denoising` is what the model was asked beside. Raises ValueError for targets that do not fit the predictions,
        and NonFiniteError, which names the image, when the matching meets NaN.
        """
        check_targets(predictions, targets)
        with torch.autocast(predictions.logits.device.type, enabled=False):
            if num_boxes is None:
                num_boxes = count_boxes(targets, predictions.logits.device)
            device = predictions.logits.device
            return self._losses(predictions, to_device(list(targets), device), num_boxes, to_device(denoising, device))

    def _losses(self, predictions: Predictions, targets: list[Target], num_boxes: Float[Tensor, ""],
                denoising: Denoising | None) -> Losses:
        last = len(predictions.logits) - 1
        suffixes = ["" if layer == last else f"_{layer}" for layer in range(last + 1)]
        parts = self._matched(predictions.logits, predictions.boxes, targets, num_boxes, suffixes)
        if predictions.proposals is not None:
            parts |= self._proposal_parts(predictions.proposals, targets, num_boxes)
        if denoising is not None:
            extra = predictions.extra
            assert extra is not None, "the model was not asked what the denoising asks"
            parts |= self._parts(extra.logits, extra.boxes, denoising.matches(targets, last + 1), targets, num_boxes,
                                 [f"_dn{suffix}" for suffix in suffixes], denoising.weights)
        weights = {"loss_ce": self.class_weight, "loss_bbox": self.box_weight, "loss_giou": self.giou_weight}
        total = torch.stack([weights["_".join(name.split("_")[:2])] * part for name, part in parts.items()]).sum()
        return Losses(total, parts)

    def _proposal_parts(self, proposals: Proposals, targets: list[Target],
                        num_boxes: Float[Tensor, ""]) -> dict[str, Float[Tensor, ""]]:
        # Proposals say only "an object": class 0 stands for all.
        repeats = self.proposal_repeats
        objects = [Target(torch.zeros_like(target.labels).repeat(repeats), target.boxes.repeat(repeats, 1),
                          target.image_id) for target in targets]
        return replace(self, class_target="hard")._matched(
            proposals.logits[None], proposals.boxes[None], objects, num_boxes * repeats, ["_enc"])

    def _matched(self, logits: Float[Tensor, "layers B Q K"], boxes: Float[Tensor, "layers B Q 4"],
                 targets: list[Target], num_boxes: Float[Tensor, ""], suffixes: list[str],
                 ) -> dict[str, Float[Tensor, ""]]:
        cost = MatchingCost(self.class_weight, self.box_weight, self.giou_weight, self.alpha, self.gamma)
        matches = match(logits.float(), boxes.float(), targets, cost)
        return self._parts(logits, boxes, matches, targets, num_boxes, suffixes)

    def _parts(self, logits: Float[Tensor, "layers B Q K"], boxes: Float[Tensor, "layers B Q 4"], matches: Matches,
               targets: list[Target], num_boxes: Float[Tensor, ""], suffixes: list[str],
               weights: Float[Tensor, "B Q"] | None = None) -> dict[str, Float[Tensor, ""]]:
        logits, boxes = logits.float(), boxes.float()
        labels, truth = (torch.cat([getattr(target, name) for target in targets]) for name in ("labels", "boxes"))
        if self.class_target == "iou":
            classes = quality_loss(logits, matches, labels, fit(boxes, matches, truth), self.gamma, weights)
        else:
            classes = focal_loss(logits, matches, labels, self.alpha, self.gamma, weights)
        by_kind = {"loss_ce": classes, **box_losses(boxes, matches, truth, weights)}
        return {f"{kind}{suffix}": layers[index] / num_boxes
                for index, suffix in enumerate(suffixes) for kind, layers in by_kind.items()}


def focal_loss(logits: Float[Tensor, "layers B Q K"], matches: Matches, labels: Tensor, alpha: float, gamma: float,
               weights: Float[Tensor, "B Q"] | None = None) -> Float[Tensor, "layers"]:
    """Focal loss of every query and class (arXiv 1708.02002, equation 5), summed in each layer."""
    truth = torch.zeros_like(logits)
    truth[matches.layer, matches.image, matches.query, labels[matches.target]] = 1
    probability = logits.sigmoid()
    miss = torch.where(truth > 0, 1 - probability, probability)
    balance = torch.where(truth > 0, alpha, 1 - alpha)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    losses = balance * miss**gamma * entropy
    return (losses if weights is None else losses * weights[..., None]).flatten(1).sum(1)


def quality_loss(logits: Float[Tensor, "layers B Q K"], matches: Matches, labels: Tensor,
                 quality: Float[Tensor, "pairs"], gamma: float,
                 weights: Float[Tensor, "B Q"] | None = None) -> Float[Tensor, "layers"]:
    """Cross-entropy of every query and class with how well its box fits, summed in each layer.

    The target is the geometric mean of score and fit, the fit counting three times, so that a query which is sure
    of its class is not held back while boxes are still bad (Align-DETR, arXiv 2304.07527, section 3.2). Where
    nothing is matched it is 0, and sure mistakes count most, as in the focal loss.
    """
    probability = logits.sigmoid()
    matched = matches.layer, matches.image, matches.query, labels[matches.target]
    truth = torch.zeros_like(logits)
    truth[matched] = probability[matched].detach()**SCORE_SHARE * quality**(1 - SCORE_SHARE)
    balance = probability**gamma
    balance = balance.index_put(matched, balance.new_ones(()))
    losses = balance * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (losses if weights is None else losses * weights[..., None]).flatten(1).sum(1)


@torch.no_grad()
def fit(boxes: Float[Tensor, "layers B Q 4"], matches: Matches, truth: Float[Tensor, "T 4"]) -> Float[Tensor, "pairs"]:
    """Intersection over union of the matched boxes with the truth."""
    found = boxes[matches.layer, matches.image, matches.query]
    intersection, union = intersection_and_union(cxcywh_to_xyxy(found), cxcywh_to_xyxy(truth[matches.target]))
    return intersection / union


def box_losses(boxes: Float[Tensor, "layers B Q 4"], matches: Matches, truth: Float[Tensor, "T 4"],
               weights: Float[Tensor, "B Q"] | None = None) -> dict[str, Float[Tensor, "layers"]]:
    """L1 and GIoU losses of the matched boxes, summed in each layer."""
    found = boxes[matches.layer, matches.image, matches.query]
    wanted = truth[matches.target]
    distance = (found - wanted).abs().sum(-1)
    disjoint = 1 - generalized_iou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(wanted))
    if weights is not None:
        share = weights[matches.image, matches.query]
        distance, disjoint = distance * share, disjoint * share
    zeros = boxes.new_zeros(len(boxes))
    return {"loss_bbox": zeros.index_add(0, matches.layer, distance),
            "loss_giou": zeros.index_add(0, matches.layer, disjoint)}


def count_boxes(targets: Sequence[Target], device: torch.device) -> Float[Tensor, ""]:
    """Number of objects a rank, averaged over all ranks; at least 1."""
    count = torch.tensor(float(sum(len(target.labels) for target in targets)), device=device)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(count)
        count = count / distributed.get_world_size()
    return count.clamp(min=1)


def check_targets(predictions: Predictions, targets: Sequence[Target]) -> None:
    """Raise ValueError for a wrong number of targets, or labels that the predictions do not have."""
    _, batch, _, num_classes = predictions.logits.shape
    if len(targets) != batch:
        raise ValueError(f"targets: expected {batch}, one an image, got {len(targets)}")
    for index, target in enumerate(targets):
        if target.boxes.shape != (len(target.labels), 4):
            raise ValueError(f"targets[{index}].boxes: expected ({len(target.labels)}, 4), "
                             f"got {tuple(target.boxes.shape)}")
        if len(target.labels) and not 0 <= int(target.labels.min()) <= int(target.labels.max()) < num_classes:
            raise ValueError(f"targets[{index}].labels (image {target.image_id!r}): expected 0 to "
                             f"{num_classes - 1}, got {int(target.labels.min())} to {int(target.labels.max())}")
