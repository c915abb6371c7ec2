"""What the model can borrow from DINO (arXiv 2203.03605), off in all published detectors."""

from pathlib import Path

import pytest
import torch

from deformable_detr import DeformableDETR, ImageBatch
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import Queries
from deformable_detr.weights import ModelInfo, load, save
from helpers.models import small_model


@pytest.fixture
def batch() -> ImageBatch:
    torch.manual_seed(1)
    return ImageBatch.from_images([torch.randn(3, 64, 96), torch.randn(3, 50, 70)])


def queries_of(model: DeformableDETR, batch: ImageBatch) -> Queries:
    pyramid = model.pyramid(model.backbone(batch))
    return model.queries(model.encoder(pyramid))


@torch.no_grad()
def test_mixed_queries_learn_the_content_and_place_the_proposals(batch: ImageBatch) -> None:
    model = small_model(mixed_queries=True)
    queries = queries_of(model, batch)
    for content in queries.content:
        assert torch.equal(content, model.queries.embedding.content.weight)
    assert not torch.allclose(queries.position[0], queries.position[1])
    elsewhere = queries_of(model, ImageBatch.from_images([image.flip(-1) for image in batch.images]))
    assert torch.equal(elsewhere.content, queries.content)
    assert not torch.allclose(elsewhere.position, queries.position)


@torch.no_grad()
def test_fewer_tokens_than_mixed_queries() -> None:
    model = small_model(mixed_queries=True, num_queries=500)
    assert model(ImageBatch.from_images([torch.randn(3, 33, 33)])).logits.shape[2] == 25 + 9 + 4 + 1


@torch.no_grad()
def test_look_forward_twice_changes_no_prediction(batch: ImageBatch) -> None:
    once, twice = (small_model(look_forward_twice=value, num_decoder_layers=3)(batch) for value in (False, True))
    assert torch.equal(once.boxes, twice.boxes)
    assert torch.equal(once.logits, twice.logits)


@pytest.mark.parametrize(("look_forward_twice", "reached"), [(False, [2]), (True, [1, 2])])
def test_how_far_back_a_box_teaches(batch: ImageBatch, look_forward_twice: bool, reached: list[int]) -> None:
    model = small_model(look_forward_twice=look_forward_twice, num_decoder_layers=3)
    model(batch).boxes[2].sum().backward()
    heads = model.decoder.heads.layers
    assert [index for index, head in enumerate(heads) if head.locate[-1].bias.grad.any()] == reached


def test_a_file_keeps_the_parts(batch: ImageBatch, tmp_path: Path) -> None:
    model = small_model(mixed_queries=True, look_forward_twice=True)
    save(tmp_path / "model.safetensors", model, ModelInfo(("a", "b", "c"), (1, 2, 3), Preprocessing(size=64)))
    again, _ = load(tmp_path / "model.safetensors")
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(again(batch).boxes, model(batch).boxes)
