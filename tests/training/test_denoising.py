"""Denoising: how noisy the boxes are, which object each belongs to, and what is learned from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from deformable_detr import ImageBatch, Target
from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.criterion.denoising import build_denoising, noisy
from deformable_detr.structures import ExtraPredictions, Predictions
from deformable_detr.training import SetLoss
from deformable_detr.training.run_folder import RunFolder
from deformable_detr.training.step import Step
from deformable_detr.weights import load
from helpers.models import small_model

pytestmark = pytest.mark.usefixtures("undrawn")

Train = Callable[..., int]

FLAGS = ("--denoising-queries", 12, "--proposal-repeats", 3, "--mixed-queries", "--look-forward-twice")


def random_targets(*counts: int) -> list[Target]:
    return [Target(torch.randint(0, 5, (count,)), 0.2 + 0.3 * torch.rand(count, 4), index)
            for index, count in enumerate(counts)]


def test_near_and_far() -> None:
    torch.manual_seed(0)
    box = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    boxes = noisy(box, 500)
    moved = (cxcywh_to_xyxy(boxes) - cxcywh_to_xyxy(box)).abs() / torch.tensor([0.1, 0.05, 0.1, 0.05])
    near, far = moved[:, 0, 0], moved[:, 1, 0][(boxes[:, 1, 0, 2:] > 0).all(-1)]
    assert 0.35 < near.max() <= 0.4 + 1e-5
    assert near.min() < 0.1
    assert 1 - 1e-5 <= far.min() < 1.1
    assert 1.9 < far.max() <= 2 + 1e-5
    assert 150 < len(far) < 400   # the others' edges have passed each other


def test_noisy_boxes_are_boxes_in_the_image() -> None:
    torch.manual_seed(0)
    boxes = cxcywh_to_xyxy(noisy(torch.tensor([[0.1, 0.9, 0.2, 0.2], [0.5, 0.5, 1.0, 1.0]]), 100))
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[..., 2:] >= boxes[..., :2]).all()


def test_slots_of_a_batch() -> None:
    torch.manual_seed(0)
    targets = random_targets(3, 0, 15, 1)
    noise = build_denoising(targets, 20)
    assert noise.queries.boxes.shape == (4, 20, 4)
    three, none, many, one = noise.queries.groups.tolist()
    assert three == [1] * 6 + [2] * 6 + [3] * 6 + [-1] * 2
    assert none == [-1] * 20
    assert many == [1] * 20
    assert one == [group for group in range(1, 11) for _ in range(2)]
    assert noise.weights.sum(1).tolist() == pytest.approx([6, 0, 20, 2])
    for group in range(3):
        near, far = noise.objects[0, 6 * group:6 * group + 6].chunk(2)
        assert sorted(near.tolist()) == [0, 1, 2]
        assert far.tolist() == [-1] * 3
    chosen = noise.objects[2, :10].tolist()
    assert len(set(chosen)) == 10
    assert set(chosen) <= set(range(15))
    for row, (index, group) in enumerate(zip(noise.objects[0, :3], noise.queries.groups[0, :3], strict=True)):
        distance = (noise.queries.boxes[0, row] - targets[0].boxes[index]).abs()
        assert group == 1
        assert (distance <= targets[0].boxes[index, 2:].repeat(2)).all()


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    targets = random_targets(3, 0, 2)
    torch.manual_seed(0)
    together = build_denoising(targets, 16)
    torch.manual_seed(0)
    for index, target in enumerate(targets):
        alone, part = build_denoising([target], 16), together.image(index)
        assert torch.equal(alone.queries.boxes, part.queries.boxes)
        assert torch.equal(alone.objects, part.objects)
        assert torch.equal(alone.weights, part.weights)


def test_losses_against_a_plain_loop() -> None:
    torch.manual_seed(0)
    targets = random_targets(3, 0, 2)
    noise = build_denoising(targets, 16)
    extra = ExtraPredictions(torch.randn(2, 3, 16, 5), 0.2 + 0.3 * torch.rand(2, 3, 16, 4))
    predictions = Predictions(torch.randn(2, 3, 7, 5), 0.2 + 0.3 * torch.rand(2, 3, 7, 4), None, extra)
    losses = SetLoss()(predictions, targets, None, noise)
    plain = SetLoss()(predictions, targets)
    assert plain.parts.keys() == {name for name in losses.parts if "_dn" not in name}
    added = 0.0
    for layer, suffix in enumerate(["_dn_0", "_dn"]):
        focal = distance = overlap = torch.zeros(())
        for image, target in enumerate(targets):
            for slot in range(16):
                weight, which = noise.weights[image, slot], int(noise.objects[image, slot])
                truth = torch.zeros(5)
                if which >= 0:
                    truth[target.labels[which]] = 1
                    box = extra.boxes[layer, image, slot]
                    distance = distance + weight * (box - target.boxes[which]).abs().sum()
                    overlap = overlap + weight * generalized_box_iou_loss(
                        cxcywh_to_xyxy(box), cxcywh_to_xyxy(target.boxes[which]))
                focal = focal + weight * sigmoid_focal_loss(extra.logits[layer, image, slot], truth, 0.25, 2, "sum")
        for kind, expected, share in (("ce", focal, 2), ("bbox", distance, 5), ("giou", overlap, 2)):
            torch.testing.assert_close(losses.parts[f"loss_{kind}{suffix}"], expected / 5)
            added += share * expected.item() / 5
    assert losses.total.item() == pytest.approx(plain.total.item() + added)


def test_perfect_predictions_have_almost_no_loss() -> None:
    targets = random_targets(3)
    noise = build_denoising(targets, 12)
    right = noise.objects >= 0
    logits, boxes = torch.full((1, 1, 12, 5), -20.0), torch.rand(1, 1, 12, 4)
    logits[0, right, targets[0].labels[noise.objects[right]]] = 20
    boxes[0, right] = targets[0].boxes[noise.objects[right]]
    predictions = Predictions(torch.zeros(1, 1, 4, 5), torch.rand(1, 1, 4, 4), None, ExtraPredictions(logits, boxes))
    parts = SetLoss()(predictions, targets, None, noise).parts
    assert all(parts[f"loss_{kind}_dn"] < 1e-5 for kind in ("ce", "bbox", "giou"))


def test_proposals_matched_several_times() -> None:
    torch.manual_seed(0)
    model = small_model()
    predictions = model(ImageBatch.from_images([torch.randn(3, 64, 96)]))
    (target,) = random_targets(2)
    target = Target(target.labels % 3, target.boxes)
    for repeats in (1, 4):
        parts = SetLoss(proposal_repeats=repeats)(predictions, [target]).parts
        gradient, = torch.autograd.grad(parts["loss_bbox_enc"], predictions.proposals.boxes, retain_graph=True)
        assert int(gradient.any(-1).sum()) == 2 * repeats
    thrice = Target(target.labels.repeat(3), target.boxes.repeat(3, 1))
    expected = SetLoss()(predictions, [thrice]).parts
    found = SetLoss(proposal_repeats=3)(predictions, [target]).parts
    assert {name: found[name].item() for name in found if name.endswith("_enc")} == pytest.approx(
        {name: part.item() for name, part in expected.items() if name.endswith("_enc")})
    assert found["loss_ce"] == SetLoss()(predictions, [target]).parts["loss_ce"]


@pytest.mark.parametrize("mixed_queries", [False, True])
def test_every_parameter_has_its_gradient_without_an_object(mixed_queries: bool) -> None:
    """As processes that share the work must have it, whatever their images show."""
    model = small_model(mixed_queries=mixed_queries, look_forward_twice=True).train()
    targets = [Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))]
    noise = build_denoising(targets, 6)
    predictions = model(ImageBatch.from_images([torch.randn(3, 64, 64)]), noise.queries)
    SetLoss(proposal_repeats=2)(predictions, targets, None, noise).total.backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.requires_grad and parameter.grad is None]


def test_smaller_batches_and_resumed_runs_learn_the_same(train: Train, tmp_path: Path) -> None:
    assert train("--out", tmp_path / "whole", "--epochs", 2, *FLAGS) == 0
    assert train("--out", tmp_path / "parts", "--epochs", 1, *FLAGS) == 0
    assert train("--out", tmp_path / "parts", "--epochs", 2, *FLAGS, "--resume") == 0
    (whole, _), (parts, _) = (load(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    assert train("--out", tmp_path / "small", "--epochs", 2, *FLAGS, "--batch-size", 1, "--total-batch", 3) == 0
    rows = [RunFolder(tmp_path / name).rows() for name in ("whole", "small")]
    for row, other in zip(*rows, strict=True):
        assert float(row["loss_ce_dn_0"]) > 0
        for name in ("loss", "loss_ce_dn_0", "loss_bbox_dn", "loss_giou_enc"):
            assert float(other[name]) == pytest.approx(float(row[name]), rel=1e-3), name


def test_a_nan_among_the_noise_is_named(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    finite = Step._finite_losses

    def poisoned(self: Step, predictions: Predictions, targets: list, *others: Any) -> object:
        for index, target in enumerate(targets):
            if target.image_id == 2:
                predictions.extra.logits.data[0, index, 0] = torch.nan
        return finite(self, predictions, targets, *others)

    monkeypatch.setattr(Step, "_finite_losses", poisoned)
    assert train("--out", tmp_path / "run", "--epochs", 1, *FLAGS) == 1
    assert "2.png" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "message"), [
    (("--preset", "refine", "--denoising-queries", 8), "denoising_queries: expected 0, since"),
    (("--denoising-queries", 1), "denoising_queries: expected 0 or at least 2"),
    (("--proposal-repeats", 0), "proposal_repeats: expected at least 1, got 0"),
])
def test_impossible_settings(train: Train, tmp_path: Path, flags: tuple[object, ...], message: str,
                             capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", tmp_path / "run", *flags) == 2
    assert message in capsys.readouterr().err
