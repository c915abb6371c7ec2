"""DETR, DAB-DETR, DAB-Deformable-DETR and DINO are the published detectors: outputs, losses, gradients, training steps.

`reference/` holds what each paper's own code computed. The tolerances are those of the reference files: rounding alone
moves the numbers by a fifth of them (the published code in float64).
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deformable_detr import ImageBatch, ModelConfig, Target, build_model, ops
from deformable_detr.boxes import inverse_sigmoid
from deformable_detr.criterion.contrastive import Noise, contrastive_denoising
from deformable_detr.criterion.denoising import Denoising
from deformable_detr.criterion.matching import match
from deformable_detr.model.network import Network
from deformable_detr.papers import Config, build_criterion
from deformable_detr.structures import Predictions
from deformable_detr.training import Recipe, build_optimizer
from deformable_detr.weights import from_official, to_official
from reference import known

REFERENCE = Path(__file__).parents[1] / "reference"
DENSE = ("detr", "detr-dc5", "dab-detr")
DEFORMABLE = ("dab-deformable-detr", "dino-4scale")
CASES = [*((preset, "reference") for preset in DENSE),
         *((preset, backend) for preset in DEFORMABLE for backend in ("reference", "numba"))]


@dataclass(frozen=True)
class Case:
    meta: dict[str, Any]
    arrays: dict[str, torch.Tensor]
    config: Config
    model: Network
    batch: ImageBatch
    targets: list[Target]


@pytest.fixture(scope="module")
def given(request: pytest.FixtureRequest) -> Case:
    """Of one preset, for all tests: whoever trains the model copies it."""
    meta, arrays = known.load(REFERENCE / f"{request.param}.npz")
    config = ModelConfig.preset(request.param, num_queries=meta["num_queries"], dropout=0.0)
    model = build_model(config).eval()
    model.load_state_dict(from_official(published_weights(meta), config))
    batch = ImageBatch.from_images([torch.from_numpy(image) for image in known.images(meta)])
    targets = [Target(torch.tensor(target["labels"]), torch.tensor(target["boxes"])) for target in meta["targets"]]
    return Case(meta, {key: torch.from_numpy(value) for key, value in arrays.items()}, config, model, batch, targets)


def published_weights(meta: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in known.weights(meta).items()}


@pytest.mark.parametrize(("given", "backend"), CASES, indirect=["given"])
def test_outputs_losses_and_gradients(given: Case, backend: str) -> None:
    given.model.zero_grad()
    with ops.use_backend(backend):
        predictions = given.model(given.batch)
        check_outputs(given, predictions)
        check_losses_and_gradients(given, predictions)


def check_outputs(given: Case, predictions: Predictions) -> None:
    arrays = given.arrays
    torch.testing.assert_close(predictions.logits[-1], arrays["pred_logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(predictions.logits[:-1], arrays["aux_logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(predictions.boxes[-1], arrays["pred_boxes"], atol=1e-5, rtol=0)
    torch.testing.assert_close(predictions.boxes[:-1], arrays["aux_boxes"], atol=1e-5, rtol=0)
    if "proposal_index" in arrays:
        proposals = predictions.proposals
        assert proposals is not None
        assert torch.equal(proposals.chosen, arrays["proposal_index"])
        torch.testing.assert_close(proposals.logits.amax(-1), arrays["proposal_score"], atol=1e-4, rtol=0)
        chosen = proposals.chosen[..., None].expand(-1, -1, 4)
        torch.testing.assert_close(proposals.boxes.gather(1, chosen), arrays["proposal_boxes"], atol=1e-5, rtol=0)
    for index, found in enumerate(predictions.detections(arrays["det_sizes"])):
        # DETR's are in the order of the queries.
        order = np.argsort(-arrays["det_scores"][index].numpy(), kind="stable")
        np.testing.assert_allclose(found.scores, arrays["det_scores"][index].numpy()[order], atol=1e-4)
        np.testing.assert_array_equal(found.labels, arrays["det_labels"][index].numpy()[order])
        size = float(arrays["det_sizes"][index].max())
        np.testing.assert_allclose(found.boxes, arrays["det_boxes"][index].numpy()[order], atol=2e-5 * size)


def check_losses_and_gradients(given: Case, predictions: Predictions) -> None:
    losses = build_criterion(given.config)(predictions, given.targets)
    check_parts(losses.parts, given.meta["losses"])
    assert losses.total.item() == pytest.approx(given.meta["total"], rel=2e-5)
    check_matches(given, predictions)

    losses.total.backward()
    gradients = to_official({name: p.grad for name, p in given.model.named_parameters() if p.grad is not None},
                            given.config)
    slack = 1e-4 * given.meta["grad_norm"]      # some gradients are zero in theory
    for name, norm in given.meta["grad_norms"].items():
        assert abs(gradients[name].norm().item() - norm) < 5e-3 * (norm + slack), name
    assert not set(given.meta["frozen"]) & set(gradients)


def check_parts(parts: dict[str, torch.Tensor], published: dict[str, float]) -> None:
    logged_only = ("loss_xy", "loss_hw")
    trained = {name: value for name, value in published.items()
               if name.startswith("loss") and not name.startswith(logged_only)}
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(trained, rel=2e-5)


def check_matches(given: Case, predictions: Predictions) -> None:
    criterion = build_criterion(given.config)
    matches = match(predictions.logits.detach(), predictions.boxes.detach(), given.targets, criterion.matching_cost)
    last = len(predictions.logits) - 1
    for layer in range(last + 1):
        published = given.meta["matched"]["last" if layer == last else f"aux_{layer}"]
        first = 0
        for image, (queries, objects) in enumerate(published):
            rows = (matches.layer == layer) & (matches.image == image)
            found = zip(matches.query[rows].tolist(), (matches.target[rows] - first).tolist(), strict=True)
            assert dict(found) == dict(zip(queries, objects, strict=True))
            first += len(given.targets[image].labels)


@pytest.mark.parametrize("given", [*DENSE, *DEFORMABLE], indirect=True)
def test_training_steps(given: Case) -> None:
    published = given.meta["train_steps"]
    model = deepcopy(given.model).train()
    optimizer = build_optimizer(model, Recipe(**given.config.recipe))
    assert [len(group["params"]) for group in optimizer.param_groups] == published["num_in_group"]
    assert [group["lr"] for group in optimizer.param_groups] == published["lr"]
    criterion = build_criterion(given.config)
    is_dino = "denoising" in given.meta
    for step, (total, norm) in enumerate(zip(published["total"], published["grad_norm"], strict=True)):
        noise = published_denoising(given, step) if is_dino else None
        predictions = model(given.batch, noise.queries if noise else None)
        losses = criterion(predictions, given.targets, denoising=noise)
        if noise and step == 0:
            check_denoising(given, predictions, noise)
            check_parts(losses.parts, given.meta["denoising"]["losses"])
        optimizer.zero_grad()
        losses.total.backward()
        found = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1).item()
        optimizer.step()
        # After an update DINO's top-k picks other proposals on a rounding.
        loose = is_dino and step > 0
        assert losses.total.item() == pytest.approx(total, rel=2e-2 if loose else 1e-3)
        # By the third step rounding has grown. dab-deformable-detr: 103.5 in float64, 100.7 on two threads. detr-dc5:
        # an edge of a box lies 6e-5 from its object's, where the GIoU has a kink; the norm is 789.9 on one side of it
        # (in float64), 796.1 on the other, and the published 795.7.
        if not loose:
            assert found == pytest.approx(norm, rel=5e-2 if step == 2 else 5e-3)


def published_denoising(given: Case, step: int) -> Denoising:
    drawn = known.denoising_noise(given.meta, given.meta["denoising"]["count"], step)
    chance, label, sign, part = (torch.from_numpy(drawn[name]) for name in ("chance", "label", "sign", "part"))
    noise = contrastive_denoising(given.targets, 200, 91, Noise(chance, label, 2 * sign - 1, part))
    assert noise is not None
    return noise


def check_denoising(given: Case, predictions: Predictions, noise: Denoising) -> None:
    arrays, num_queries = given.arrays, given.meta["num_queries"]
    num_extra = given.meta["denoising"]["pad_size"]
    assert torch.equal(noise.queries.labels, arrays["dn_label_queries"])
    torch.testing.assert_close(inverse_sigmoid(noise.queries.boxes), arrays["dn_box_queries"], atol=1e-3, rtol=1e-3)
    # The published code puts the denoising queries first.
    order = [*range(num_queries, num_queries + num_extra), *range(num_queries)]
    mask = np.unpackbits(arrays["dn_mask"].numpy(), axis=1)[:, :num_queries + num_extra].astype(bool)
    blocked = noise.queries.blocked(num_queries).numpy()
    assert all((image[np.ix_(order, order)] == mask).all() for image in blocked)
    assert predictions.extra is not None
    torch.testing.assert_close(predictions.extra.boxes[-1], arrays["dn_boxes"], atol=1e-5, rtol=0)
    torch.testing.assert_close(predictions.extra.logits[-1][..., ::8], arrays["dn_logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(predictions.extra.boxes[:-1][:, :, ::4], arrays["dn_aux_boxes"], atol=1e-5, rtol=0)
    torch.testing.assert_close(predictions.boxes[-1], arrays["train_boxes"], atol=1e-5, rtol=0)
    torch.testing.assert_close(predictions.logits[-1][..., ::8], arrays["train_logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("given", [*DENSE, *DEFORMABLE], indirect=True)
def test_parameters_and_names(given: Case) -> None:
    parameters = list(given.model.parameters())
    assert sum(p.numel() for p in parameters) == given.meta["num_parameters"]
    assert sum(p.numel() for p in parameters if p.requires_grad) == given.meta["trainable"]
    published = published_weights(given.meta)
    for config in (given.config, None):     # without a config the keys tell whose they are
        returned = to_official(given.model.state_dict(), config)
        assert returned.keys() == published.keys()
        assert all(torch.equal(returned[key], published[key]) for key in published)
        assert from_official(published, config).keys() == given.model.state_dict().keys()
