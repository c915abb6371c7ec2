"""What users of the papers' code bases have reported, rebuilt small: each paper must stand it."""

from typing import Any

import pytest
import torch

from deformable_detr import ImageBatch, ModelConfig, Target
from deformable_detr.criterion.class_losses import Counts
from deformable_detr.criterion.contrastive import Noise, contrastive_denoising, noisy_boxes
from deformable_detr.papers import build_criterion
from deformable_detr.structures import Predictions, to_device
from helpers.models import SMALL, small_model

PRESETS = ["two-stage", "detr", "dab-detr", "dab-deformable-detr", "dino-4scale"]
QUERIES: Any = SMALL["num_queries"]


def batch_of(*sizes: tuple[int, int]) -> ImageBatch:
    torch.manual_seed(1)
    return ImageBatch.from_images([torch.randn(3, *size) for size in sizes])


def target_of(count: int, seed: int = 0) -> Target:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 4, generator=generator) * 0.4 + 0.2
    return Target(torch.randint(3, (count,), generator=generator), boxes)


@pytest.mark.parametrize("preset", PRESETS)
def test_losses_do_not_depend_on_how_images_are_divided(preset: str) -> None:
    """facebookresearch/detr#354: the classes were divided by what one device had, the boxes by what all had."""
    model, targets = small_model(preset), [target_of(4), target_of(0), target_of(1, seed=2)]
    predictions, loss = model(batch_of((64, 96), (50, 70), (64, 64))), build_criterion(model.config)
    step = Counts(torch.tensor(5.0), torch.tensor(3.0))
    together = loss(predictions, targets)
    apart = [loss(predictions.image(index), [target], step) for index, target in enumerate(targets)]
    for name, part in together.parts.items():
        torch.testing.assert_close(torch.stack([each.parts[name] for each in apart]).sum(), part)
    torch.testing.assert_close(torch.stack([each.total for each in apart]).sum(), together.total)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_beyond_the_classes_is_named(preset: str, label: int) -> None:
    """facebookresearch/detr#156, #467: a device-side assertion; "no object" is no class to be labelled with."""
    model = small_model(preset)
    wrong = Target(torch.tensor([label]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), image_id="seven")
    with pytest.raises(ValueError, match=r"'seven'\): expected 0 to 2, got"):
        build_criterion(model.config)(model(batch_of((64, 64))), [wrong])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("counts", [(QUERIES + 5, 2), (QUERIES + 5, 0), (0, 0)])
def test_more_objects_than_queries_and_none_at_all(preset: str, counts: tuple[int, int]) -> None:
    """facebookresearch/detr#28: with as few queries as classes the matching failed."""
    model = small_model(preset).train()
    losses = build_criterion(model.config)(model(batch_of((64, 96), (50, 70))), [target_of(count) for count in counts])
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_tiny_image_beside_a_large_one(preset: str) -> None:
    """facebookresearch/detr#101: a mask that was nothing but padding made every box NaN."""
    model = small_model(preset)
    with torch.no_grad():
        for sizes in ([(1, 1), (400, 300)], [(3, 200), (200, 3)]):
            found = model(batch_of(*sizes))
            assert found.are_finite()


@pytest.mark.parametrize("preset", ["two-stage", "dino-4scale"])
def test_fewer_tokens_than_queries(preset: str) -> None:
    """IDEA-Research/DINO#52: "selected index k out of range"."""
    model = small_model(preset, num_queries=300)
    with torch.no_grad():
        found = model(batch_of((32, 40)))
    assert 0 < found.logits.shape[2] < 300


def test_more_objects_than_denoising_queries() -> None:
    """More than 100 objects left no group, and divided by zero."""
    model, target = small_model("dino-4scale", num_queries=40).train(), target_of(150)
    noise = contrastive_denoising([target, target_of(3)], 200, 3)
    assert noise is not None
    assert noise.queries.boxes.shape == (2, 300, 4)
    predictions = model(batch_of((64, 96), (50, 70)), noise.queries)
    assert build_criterion(model.config)(predictions, [target, target_of(3)], denoising=noise).total.isfinite()


def test_noise_that_turns_a_box_inside_out() -> None:
    """IDEA-Research/detrex#343: far boxes may get a negative width."""
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.05, 0.95, 0.3, 0.3]])
    inwards = torch.tensor([1.0, 1, -1, -1]).expand(4, 4)
    no_labels = torch.zeros(4, dtype=torch.int64)
    found = noisy_boxes(boxes, Noise(torch.ones(4), no_labels, inwards, torch.full((4, 4), 0.99)))
    assert found.isfinite().all()
    assert (found > 0).all()
    assert (found < 1).all()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_are_finite(preset: str, dtype: torch.dtype) -> None:
    """open-mmlab/mmdetection#10335: gradients were NaN under automatic mixed precision."""
    model, targets = small_model(preset).train(), [target_of(3), target_of(1)]
    with torch.autocast("cpu", dtype):
        predictions: Predictions = model(batch_of((64, 96), (50, 70)))
        losses = build_criterion(model.config)(predictions, targets)
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)
    half = model.to(dtype).eval()
    with torch.no_grad():
        assert half(batch_of((64, 96))).are_finite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_anchors_of_hardly_any_size(dtype: torch.dtype) -> None:
    """DAB-DETR divides by width and height."""
    model = small_model("dab-detr")
    model.queries.anchors.weight[:, 2:] = -13.0 if dtype != torch.float16 else -9.0
    assert model.to(dtype)(batch_of((64, 96))).are_finite()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_copy_on_another_device_has_all_of_it(preset: str) -> None:
    """Positions and masks made on the CPU met weights elsewhere ("meta" stands for a GPU)."""
    model = small_model(preset).to("meta")
    assert model(to_device(batch_of((64, 96), (64, 96)), "meta")).logits.device.type == "meta"


def test_queries_cannot_be_changed_with_the_weights() -> None:
    """woctezuma/finetune-detr#4: a size mismatch of query_embed."""
    from deformable_detr.training.start import Start

    with pytest.raises(ValueError, match="weights: expected no change of num_queries"):
        Start(weights="demo", changes={"num_queries": 500})
    assert ModelConfig.preset("detr").num_queries == 100
