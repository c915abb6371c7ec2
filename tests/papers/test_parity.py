"""The same detector as the published code: outputs, losses, gradients and training steps, for all five presets.

`reference/` holds what the published code computed, and `known.py` rebuilds the weights and images it was given.
The tolerances are those of the reference; another way of computing the op moved its numbers by far less.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deformable_detr import DeformableDETR, ImageBatch, ModelConfig, Target, ops
from deformable_detr.training import Recipe, SetLoss, build_optimizer
from deformable_detr.weights import from_official, to_official
from reference import known

REFERENCE = Path(__file__).parents[1] / "reference"


@dataclass(frozen=True)
class Case:
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]
    model: DeformableDETR
    batch: ImageBatch
    targets: list[Target]


@pytest.fixture(scope="module", params=ModelConfig.presets)
def case(request: pytest.FixtureRequest) -> Case:
    """Of one preset, for all tests: whoever trains the model copies it."""
    meta, arrays = known.load(REFERENCE / f"{request.param}.npz")
    model = DeformableDETR(ModelConfig.preset(request.param, num_queries=60, dropout=0.0)).eval()
    model.load_state_dict(from_official(official_weights(meta)))
    batch = ImageBatch.from_images([torch.from_numpy(image) for image in known.images(meta)])
    targets = [Target(torch.tensor(target["labels"]), torch.tensor(target["boxes"])) for target in meta["targets"]]
    return Case(meta, arrays, model, batch, targets)


def official_weights(meta: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in known.weights(meta).items()}


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_outputs_losses_and_gradients(case: Case, backend: str) -> None:
    case.model.zero_grad()
    with ops.use_backend(backend):
        check_outputs_and_gradients(case)


def check_outputs_and_gradients(case: Case) -> None:
    predictions = case.model(case.batch)
    arrays = {key: torch.from_numpy(value) for key, value in case.arrays.items()}
    assert case.batch.images.shape == tuple(case.arrays["padded_shape"])
    torch.testing.assert_close(predictions.logits[-1], arrays["pred_logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(predictions.logits[:-1], arrays["aux_logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(predictions.boxes[-1], arrays["pred_boxes"], atol=1e-5, rtol=0)
    torch.testing.assert_close(predictions.boxes[:-1], arrays["aux_boxes"], atol=1e-5, rtol=0)
    proposals = predictions.proposals
    if proposals is not None:
        torch.testing.assert_close(proposals.logits[..., 0], arrays["enc_logits_class0"], atol=1e-4, rtol=0)
        torch.testing.assert_close(proposals.boxes.sum(-1), arrays["enc_boxes_sum"], atol=4e-5, rtol=0)
    check_detections(predictions.detections(case.arrays["det_sizes"]), case.arrays)

    losses = SetLoss()(predictions, case.targets)
    published = {name: value for name, value in case.meta["losses"].items() if name.startswith("loss")}
    assert {name: part.item() for name, part in losses.parts.items()} == pytest.approx(published, rel=1e-5)
    assert losses.total.item() == pytest.approx(case.meta["total"], rel=1e-5)

    losses.total.backward()
    gradients = to_official({name: p.grad for name, p in case.model.named_parameters() if p.grad is not None})
    norms = {name: gradients[name].norm().item() for name in case.meta["grad_norms"]}
    assert norms == pytest.approx(case.meta["grad_norms"], rel=2e-3)
    assert not set(case.meta["frozen"]) & set(gradients)


def check_detections(detections: list[Any], arrays: dict[str, np.ndarray]) -> None:
    for index, found in enumerate(detections):
        np.testing.assert_allclose(found.scores, arrays["det_scores"][index], atol=1e-4)
        np.testing.assert_array_equal(found.labels, arrays["det_labels"][index])
        size = arrays["det_sizes"][index].max()
        np.testing.assert_allclose(found.boxes, arrays["det_boxes"][index], atol=2e-5 * size)


def test_training_steps(case: Case) -> None:
    published = case.meta["train_steps"]
    recipe = Recipe()
    model = deepcopy(case.model).train()
    optimizer = build_optimizer(model, recipe)
    assert [len(group["params"]) for group in optimizer.param_groups] == published["num_in_group"]
    totals, norms = [], []
    for _ in range(3):
        total = SetLoss()(model(case.batch), case.targets).total
        optimizer.zero_grad()
        total.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm).item())
        optimizer.step()
        totals.append(total.item())
    assert totals == pytest.approx(published["total"], rel=1e-3)
    assert norms[:2] == pytest.approx(published["grad_norm"][:2], rel=1e-3)
    # By the third step rounding has grown: in float64 `refine` ends 1.1e-3 from the published number, and on an AMD
    # processor one thread or two made a difference of 2.8e-3 to `single-scale`.
    assert norms[2] == pytest.approx(published["grad_norm"][2], rel=5e-3)


def test_parameters_and_names(case: Case) -> None:
    parameters = list(case.model.parameters())
    assert sum(p.numel() for p in parameters) == case.meta["num_parameters"]
    assert sum(p.numel() for p in parameters if p.requires_grad) == case.meta["trainable"]
    official = official_weights(case.meta)
    returned = to_official(case.model.state_dict())
    assert returned.keys() == official.keys()
    assert all(torch.equal(returned[key], official[key]) for key in official)
