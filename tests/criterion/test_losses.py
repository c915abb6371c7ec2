"""Losses against a plain loop and torchvision, in half precision, and without objects."""

import pytest
import torch
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from deformable_detr import ImageBatch, Target
from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.criterion.matching import MatchingCost, match
from deformable_detr.structures import Predictions
from deformable_detr.training import SetLoss
from helpers.models import small_model


def random_case(*counts: int) -> tuple[Predictions, list[Target]]:
    torch.manual_seed(0)
    shape = 3, len(counts), 7
    predictions = Predictions(torch.randn(*shape, 5, requires_grad=True),
                              (0.2 + 0.3 * torch.rand(*shape, 4)).requires_grad_(), None)
    targets = [Target(torch.randint(0, 5, (count,)), 0.2 + 0.3 * torch.rand(count, 4), index)
               for index, count in enumerate(counts)]
    return predictions, targets


def test_each_layer_against_a_plain_loop() -> None:
    predictions, targets = random_case(2, 0, 3)
    losses = SetLoss()(predictions, targets)
    for layer, suffix in enumerate(["_0", "_1", ""]):
        logits, boxes = predictions.logits[layer], predictions.boxes[layer]
        matches = match(logits[None], boxes[None], targets, MatchingCost())
        truth = torch.zeros_like(logits)
        distance = overlap = torch.zeros(())
        flat_labels = torch.cat([target.labels for target in targets])
        flat_boxes = torch.cat([target.boxes for target in targets])
        for image, query, index in zip(matches.image, matches.query, matches.target, strict=True):
            truth[image, query, flat_labels[index]] = 1
            box, wanted = boxes[image, query], flat_boxes[index]
            distance = distance + (box - wanted).abs().sum()
            overlap = overlap + generalized_box_iou_loss(cxcywh_to_xyxy(box), cxcywh_to_xyxy(wanted))
        focal = sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2, reduction="sum")
        torch.testing.assert_close(losses.parts[f"loss_ce{suffix}"], focal / 5)
        torch.testing.assert_close(losses.parts[f"loss_bbox{suffix}"], distance / 5)
        torch.testing.assert_close(losses.parts[f"loss_giou{suffix}"], overlap / 5)


def test_total_is_the_weighted_sum() -> None:
    predictions, targets = random_case(2, 3)
    losses = SetLoss(class_weight=3, box_weight=7, giou_weight=0.5)(predictions, targets)
    weights = {"loss_ce": 3, "loss_bbox": 7, "loss_giou": 0.5}
    expected = sum(weights[name.removesuffix("_0").removesuffix("_1")] * part for name, part in losses.parts.items())
    torch.testing.assert_close(losses.total, expected)


def test_a_batch_without_objects_trains() -> None:
    predictions, targets = random_case(0, 0)
    losses = SetLoss()(predictions, targets)
    losses.total.backward()
    assert losses.total > 0
    assert losses.parts["loss_bbox"] == 0
    assert predictions.logits.grad is not None
    assert predictions.logits.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_nothing(dtype: torch.dtype) -> None:
    predictions, targets = random_case(2, 3)
    confident = Predictions(20 * predictions.logits.detach(), predictions.boxes.detach(), None)
    half = Predictions(confident.logits.to(dtype), confident.boxes, None)
    rounded = Predictions(half.logits.float(), half.boxes, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = SetLoss()(half, targets).total
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, SetLoss()(rounded, targets).total)


def test_proposals_are_trained_on_class_0_alone() -> None:
    model = small_model().train()
    batch = ImageBatch.from_images([torch.randn(3, 64, 64)])
    predictions = model(batch)
    losses = SetLoss()(predictions, [Target(torch.tensor([2]), torch.tensor([[0.5, 0.5, 0.2, 0.3]]))])
    assert list(losses.parts)[-3:] == ["loss_ce_enc", "loss_bbox_enc", "loss_giou_enc"]
    losses.total.backward()
    gradient = model.queries.head.classify.weight.grad
    assert gradient is not None
    assert gradient.norm() > 0


def test_scores_that_follow_the_boxes() -> None:
    predictions, targets = random_case(2, 0, 3)
    losses = SetLoss(class_target="iou")(predictions, targets)
    labels, truth = (torch.cat(parts) for parts in zip(*[(t.labels, t.boxes) for t in targets], strict=True))
    for layer, suffix in enumerate(["_0", "_1", ""]):
        logits, boxes = predictions.logits[layer], predictions.boxes[layer]
        matches = match(logits[None], boxes[None], targets, MatchingCost())
        score = logits.sigmoid()
        expected = -(score**2 * (1 - score).log()).sum()
        for image, query, index in zip(matches.image, matches.query, matches.target, strict=True):
            p = score[image, query, labels[index]]
            overlap = box_iou(cxcywh_to_xyxy(boxes[image, query])[None], cxcywh_to_xyxy(truth[index])[None]).item()
            wanted = p**0.25 * overlap**0.75
            expected = expected + p**2 * (1 - p).log() - wanted * p.log() - (1 - wanted) * (1 - p).log()
        torch.testing.assert_close(losses.parts[f"loss_ce{suffix}"], expected / 5)
    hard = SetLoss()(predictions, targets)
    assert {name for name, part in hard.parts.items() if not torch.equal(part, losses.parts[name])} == {
        "loss_ce", "loss_ce_0", "loss_ce_1"}
    losses.total.backward()
    assert predictions.logits.grad.isfinite().all()


def test_a_score_moves_towards_the_fit_of_its_box() -> None:
    """Up where the box is good, down where the score promises too much; the box learns nothing from it."""
    truth = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    moves = []
    for shift, score in ((0.0, 0.5), (0.15, 0.9)):
        logits = torch.tensor(score).logit().expand(1, 1, 1, 1).clone().requires_grad_()
        boxes = (truth + torch.tensor([shift, 0, 0, 0]))[None, None].requires_grad_()
        part = SetLoss(class_target="iou")(Predictions(logits, boxes, None), [Target(torch.tensor([0]), truth)]).parts
        gradient, none = torch.autograd.grad(part["loss_ce"], [logits, boxes], allow_unused=True)
        moves.append(-gradient.sign().item())
        assert none is None
    assert moves == [1, -1]


@pytest.mark.parametrize(("targets", "message"), [
    ([], "targets: expected 1"),
    ([Target(torch.tensor([5]), torch.ones(1, 4), "a.jpg")], "image 'a.jpg'.*expected 0 to 4, got 5 to 5"),
    ([Target(torch.tensor([-1]), torch.ones(1, 4))], "expected 0 to 4"),
])
def test_targets_that_do_not_fit(targets: list[Target], message: str) -> None:
    predictions, _ = random_case(1)
    with pytest.raises(ValueError, match=message):
        SetLoss()(predictions, targets)
