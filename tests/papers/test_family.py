"""Every paper, small: any image size, gradients for every parameter, files, half precision; and what each refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deformable_detr import ImageBatch, ModelConfig, Target
from deformable_detr.criterion.contrastive import contrastive_denoising
from deformable_detr.criterion.denoising import build_denoising
from deformable_detr.papers import PAPERS, Config, build_criterion
from deformable_detr.weights import ModelInfo, from_official, load, save, to_official
from helpers.models import SMALL, small_model

PRESETS = [preset for config in Config.papers.values() for preset in config.presets]
TARGETS = [Target(torch.tensor([1, 2]), torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.2, 0.7, 0.1, 0.1]])),
           Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))]


def batch_of(*sizes: tuple[int, int]) -> ImageBatch:
    torch.manual_seed(1)
    return ImageBatch.from_images([torch.randn(3, *size) for size in sizes])


def test_every_paper_has_presets_of_its_own() -> None:
    assert set(PAPERS) == set(Config.papers)
    assert len(PRESETS) == len(set(PRESETS)) == 12


@pytest.mark.parametrize("preset", PRESETS)
def test_odd_sizes_are_answered_and_every_parameter_learns(preset: str) -> None:
    model = small_model(preset).train()
    batch = batch_of((65, 97), (33, 50))
    predictions = model(batch)
    losses = build_criterion(model.config)(predictions, TARGETS)
    losses.total.backward()
    assert predictions.boxes.shape[:2] == (2, 2)
    assert predictions.boxes.isfinite().all()
    assert (predictions.boxes >= 0).all()
    assert (predictions.boxes <= 1).all()
    assert losses.total.isfinite()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    missing = [name for name, parameter in trained if parameter.grad is None]
    assert not missing


@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_queries_do_not_attend_to_padding(preset: str) -> None:
    model = small_model(preset, num_queries=5)
    memory = model.encoder(model.pyramid(model.backbone(batch_of((64, 64), (64, 128)))))
    queries = model.queries(memory)
    poisoned = replace(memory, tokens=memory.tokens.masked_fill(memory.padding[..., None], 1e4))
    assert memory.padding.any()
    for expected, found in zip(*(model.decoder(queries, each).boxes for each in (memory, poisoned)), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_files_and_published_names_go_there_and_back(preset: str, tmp_path: Path) -> None:
    model = small_model(preset)
    save(tmp_path / "model.safetensors", model, ModelInfo(("a", "b", "c"), (1, 2, 3)))
    again, _ = load(tmp_path / "model.safetensors")
    assert again.config == model.config
    batch = batch_of((64, 96))
    assert torch.equal(again(batch).boxes, model(batch).boxes)
    state = model.state_dict()
    returned = from_official(to_official(state, model.config), model.config)
    assert returned.keys() == state.keys()
    assert all(returned[key] is state[key] for key in state)


@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_bfloat16_is_near(preset: str) -> None:
    model = small_model(preset, num_queries=5)
    batch = batch_of((64, 96))
    expected = model(batch)
    found = model.bfloat16()(batch)
    assert found.boxes.dtype == torch.float32
    assert found.logits.isfinite().all()
    if expected.proposals is None:      # rounding may choose other proposals
        torch.testing.assert_close(found.boxes, expected.boxes, atol=0.1, rtol=0)


def test_detr_gives_one_class_to_a_query() -> None:
    model = small_model("detr")
    with torch.no_grad():
        found = model(batch_of((64, 96))).detections([(64, 96)])[0]
    assert len(found) == SMALL["num_queries"]
    assert len({tuple(box) for box in found.boxes.tolist()}) == len(found)
    assert set(found.labels.tolist()) <= {0, 1, 2}


def test_denoising_queries_do_not_change_the_others() -> None:
    model = small_model("dino-4scale")
    batch, noise = batch_of((64, 96), (50, 70)), contrastive_denoising(TARGETS, 12, 3)
    assert noise is not None
    with torch.no_grad():
        alone, beside = model(batch), model(batch, noise.queries)
    torch.testing.assert_close(beside.boxes, alone.boxes, atol=1e-5, rtol=0)
    losses = build_criterion(model.config)(beside, TARGETS, denoising=noise)
    assert losses.parts["loss_ce_dn"] > 0
    assert contrastive_denoising([TARGETS[1]], 12, 3) is None


@pytest.mark.parametrize("preset", ["detr", "dab-detr", "dab-deformable-detr"])
def test_queries_without_proposals_refuse_extra_ones(preset: str) -> None:
    with pytest.raises(ValueError, match="extra_queries"):
        small_model(preset)(batch_of((64, 96), (50, 70)), build_denoising(TARGETS, 4).queries)


def test_a_field_of_another_paper_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_points: has no meaning for detr"):
        ModelConfig.preset("detr", num_points=2)
    with pytest.raises(ValueError, match="two_stage: has no meaning for dino"):
        ModelConfig.preset("dino-4scale", two_stage=True)
    with pytest.raises(ValueError, match="num_maps: expected 1 to 4, got 5"):
        ModelConfig.preset("dino-5scale", num_maps=5)
