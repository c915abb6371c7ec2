"""Predictions and targets -> one number to minimise (paper, appendix A.3; DETR, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.distributed as distributed
from jaxtyping import Float
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy, generalized_iou
from deformable_detr.criterion.class_costs import ClassCost, FocalCost
from deformable_detr.criterion.class_losses import Answers, ClassLoss, Counts, FocalLoss, QualityLoss
from deformable_detr.criterion.denoising import Denoising
from deformable_detr.criterion.matching import Matches, MatchingCost, match
from deformable_detr.criterion.proposals import ProposalTask, objectness
from deformable_detr.structures import Predictions, Proposals, Target, to_device


@dataclass(frozen=True)
class Losses:
    """The weighted sum, and its unweighted parts under their published names.

    `loss_ce`, `loss_bbox`, `loss_giou` are the last layer's; `_0`, `_1`, ... those of the layers before; `_enc`
    (in DINO `_interm`) those of the two-stage proposals; `_dn`, `_dn_0`, `_dn_1`, ... those of the denoising.
    """

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


class LayerLosses(NamedTuple):
    """Losses of some layers by their kind, and the ending that the published names of each layer have."""

    endings: list[str]
    by_kind: dict[str, Float[Tensor, "layers"]]


@dataclass(frozen=True)
class SetLoss:
    """Matches queries with objects, layer by layer, then adds classification, L1 and GIoU losses.

    The defaults are Deformable DETR's. Everything is computed in float32, whatever the autocast around it: in half
    precision 1 - p + 1e-8 underflows and costs become infinite. Raises ValueError for a `class_target` that
    `class_loss` has no use for.

    Attributes:
        class_weight: Of the classification loss; like the two below also of its cost in the matching.
        box_weight: Of the L1 loss.
        giou_weight: Of the GIoU loss.
        alpha: Of the focal loss.
        gamma: Of the focal loss.
        proposal_repeats: This many proposals are matched with every object (H-DETR, arXiv 2207.13080), which gives the
            encoder that much more supervision; their losses are divided by it. The best proposals then hold several of
            each object, so there must be enough queries.
        class_target: What a matched query's score should become: "hard", 1; or "iou", which grows with how well its
            box fits, so that the best boxes come first (see `QualityLoss`). Proposals are always "hard".
        class_loss: In the place of the focal loss.
        class_cost: Of the matching, in the place of the focal loss's.
        class_cost_factor: How many times `class_weight` the class weighs in the matching.
        giou_epsilon: Added to the areas that the GIoU divides by, in matching and loss.
        proposals: Which proposals are trained as what.
        denoising_names: Whether the parts of the denoising are listed, as zeros, where there is none.
    """

    class_weight: float = 2
    box_weight: float = 5
    giou_weight: float = 2
    alpha: float = 0.25
    gamma: float = 2
    proposal_repeats: int = 1
    class_target: Literal["hard", "iou"] = "hard"
    class_loss: ClassLoss | None = None
    class_cost: ClassCost | None = None
    class_cost_factor: float = 1
    giou_epsilon: float = 0.0
    proposals: ProposalTask = objectness
    denoising_names: bool = False

    def __post_init__(self) -> None:
        if self.class_loss and self.class_target != "hard":
            raise ValueError(f"class_target: expected 'hard', the only one for {type(self.class_loss).__name__}, "
                             f"got {self.class_target!r}")

    def __call__(self, predictions: Predictions, targets: Sequence[Target],
                 step: Counts | None = None, denoising: Denoising | None = None) -> Losses:
        """The losses of a batch, or its share of those of a larger step, whose size is `step`.

        `denoising` describes the extra queries, where there were any. Raises ValueError for targets that do not fit the
        predictions, and NonFiniteError, which names the image, when the matching meets NaN.
        """
        check_targets(predictions, targets)
        device = predictions.logits.device
        with torch.autocast(device.type, enabled=False):
            return self._losses(predictions, to_device(list(targets), device), step or count_step(targets, device),
                                to_device(denoising, device))

    def _losses(self, predictions: Predictions, targets: list[Target], step: Counts,
                denoising: Denoising | None) -> Losses:
        last = len(predictions.logits) - 1
        endings = [*(f"_{layer}" for layer in range(last)), ""]
        groups = [LayerLosses(endings, self._matched(predictions.logits, predictions.boxes, targets, step))]
        if predictions.proposals is not None:
            groups.append(self._proposal_losses(predictions.proposals, targets, step))
        noisy = [f"_dn{ending}" for ending in endings]
        if denoising is not None:
            extra = predictions.extra
            assert extra is not None, "the model got no extra queries"
            matches = denoising.matches(targets, last + 1)
            groups.append(LayerLosses(noisy, self._by_kind(extra.logits, extra.boxes, matches, targets, step,
                                                           denoising.weights)))
        elif self.denoising_names:
            zeros = predictions.logits.new_zeros(len(noisy))
            groups.append(LayerLosses(noisy, dict.fromkeys(groups[0].by_kind, zeros)))
        return self._sum(groups)

    def _sum(self, groups: list[LayerLosses]) -> Losses:
        weights = {"loss_ce": self.class_weight, "loss_bbox": self.box_weight, "loss_giou": self.giou_weight}
        parts, weighted = {}, []
        for endings, by_kind in groups:
            for layer, ending in enumerate(endings):
                for kind, losses in by_kind.items():
                    parts[f"{kind}{ending}"] = losses[layer]
                    weighted.append(weights[kind] * losses[layer])
        return Losses(torch.stack(weighted).sum(), parts)

    def _proposal_losses(self, proposals: Proposals, targets: list[Target], step: Counts) -> LayerLosses:
        task = self.proposals(proposals, targets)
        repeats = self.proposal_repeats
        objects = [Target(target.labels.repeat(repeats), target.boxes.repeat(repeats, 1), target.image_id)
                   for target in task.targets]
        hard = replace(self, class_target="hard")
        repeated = replace(step, boxes=step.boxes * repeats)
        return LayerLosses([task.ending], hard._matched(task.logits[None], task.boxes[None], objects, repeated))

    def _matched(self, logits: Float[Tensor, "layers B Q K"], boxes: Float[Tensor, "layers B Q 4"],
                 targets: list[Target], step: Counts) -> dict[str, Float[Tensor, "layers"]]:
        matches = match(logits.float(), boxes.float(), targets, self.matching_cost)
        return self._by_kind(logits, boxes, matches, targets, step)

    def _by_kind(self, logits: Float[Tensor, "layers B Q K"], boxes: Float[Tensor, "layers B Q 4"], matches: Matches,
                 targets: list[Target], step: Counts,
                 weights: Float[Tensor, "B Q"] | None = None) -> dict[str, Float[Tensor, "layers"]]:
        labels, truth = (torch.cat([getattr(target, name) for target in targets]) for name in ("labels", "boxes"))
        answers = Answers(logits.float(), boxes.float(), matches, labels, truth, step, weights)
        return {"loss_ce": self._class_loss(answers), **box_losses(answers, self.giou_epsilon)}

    @property
    def matching_cost(self) -> MatchingCost:
        """What the matching minimises."""
        return MatchingCost(self.class_weight * self.class_cost_factor, self.box_weight, self.giou_weight,
                            self.class_cost or FocalCost(self.alpha, self.gamma), self.giou_epsilon)

    @property
    def _class_loss(self) -> ClassLoss:
        if self.class_target == "iou":
            return QualityLoss(self.gamma)
        return self.class_loss or FocalLoss(self.alpha, self.gamma)


def box_losses(answers: Answers, epsilon: float) -> dict[str, Float[Tensor, "layers"]]:
    """L1 and GIoU losses of the matched boxes, summed in each layer and divided by the number of boxes."""
    matches = answers.matches
    found = answers.boxes[matches.layer, matches.image, matches.query]
    wanted = answers.truth[matches.target]
    distance = (found - wanted).abs().sum(-1)
    disjoint = 1 - generalized_iou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(wanted), epsilon)
    if answers.weights is not None:
        share = answers.weights[matches.image, matches.query]
        distance, disjoint = distance * share, disjoint * share
    zeros = answers.boxes.new_zeros(len(answers.boxes))
    return {"loss_bbox": zeros.index_add(0, matches.layer, distance) / answers.divisor,
            "loss_giou": zeros.index_add(0, matches.layer, disjoint) / answers.divisor}


def count_step(targets: Sequence[Target], device: torch.device) -> Counts:
    """Objects and images of a step that has these `targets` in this process, averaged over all processes."""
    count = torch.tensor([float(sum(len(target.labels) for target in targets)), float(len(targets))], device=device)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(count)
        count = count / distributed.get_world_size()
    return Counts(*count)


def check_targets(predictions: Predictions, targets: Sequence[Target]) -> None:
    """Raise ValueError for a wrong number of targets, or labels that the predictions do not have."""
    _, batch, _, num_classes = predictions.logits.shape
    num_classes -= predictions.no_object
    if len(targets) != batch:
        raise ValueError(f"targets: expected {batch}, one an image, got {len(targets)}")
    for index, target in enumerate(targets):
        if target.boxes.shape != (len(target.labels), 4):
            raise ValueError(f"targets[{index}].boxes: expected ({len(target.labels)}, 4), "
                             f"got {tuple(target.boxes.shape)}")
        if len(target.labels) and not 0 <= int(target.labels.min()) <= int(target.labels.max()) < num_classes:
            raise ValueError(f"targets[{index}].labels (image {target.image_id!r}): expected 0 to "
                             f"{num_classes - 1}, got {int(target.labels.min())} to {int(target.labels.max())}")
