"""The model at unusual sizes, with other backbones, and as it starts."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deformable_detr import DeformableDETR, ImageBatch, ModelConfig
from deformable_detr.model import feedforward
from deformable_detr.structures import Predictions
from helpers.models import small_model


def predict(model: DeformableDETR, *sizes: tuple[int, int]) -> Predictions:
    torch.manual_seed(1)
    with torch.no_grad():
        return model(ImageBatch.from_images([torch.randn(3, height, width) for height, width in sizes]))


@pytest.mark.parametrize("preset", ModelConfig.presets)
@pytest.mark.parametrize("sizes", [[(1, 1)], [(1, 70)], [(65, 97), (40, 33)], [(64, 64)] * 3])
def test_any_preset_takes_images_of_any_size(preset: str, sizes: list[tuple[int, int]]) -> None:
    backbone = {"backbone": "test_resnet"} if preset == "single-scale-dc5" else {}
    predictions = predict(small_model(preset, **backbone), *sizes)
    num_queries = predictions.logits.shape[2]
    assert predictions.logits.shape == (2, len(sizes), num_queries, 3)
    assert predictions.boxes.shape == (2, len(sizes), num_queries, 4)
    assert predictions.logits.isfinite().all()
    assert ((predictions.boxes >= 0) & (predictions.boxes <= 1)).all()
    assert (predictions.proposals is not None) == (preset == "two-stage")


@pytest.mark.parametrize("num_levels", [1, 2, 3, 4, 6])
def test_any_number_of_levels(num_levels: int) -> None:
    model = small_model(num_levels=num_levels)
    pyramid = model.pyramid(model.backbone(ImageBatch.from_images([torch.randn(3, 200, 136)])))
    shapes = [(25, 17), (13, 9), (7, 5), (4, 3), (2, 2), (1, 1)]
    assert pyramid.level_shapes == tuple(shapes[max(0, 3 - num_levels):][:num_levels])
    assert predict(model, (200, 136)).logits.isfinite().all()


def test_the_encoder_takes_tokens_by_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(num_encoder_layers=2)
    whole = predict(model, (65, 97), (40, 33))
    monkeypatch.setattr(feedforward, "SLICE", 7)
    torch.testing.assert_close(predict(model, (65, 97), (40, 33)), whole)


def test_no_more_proposals_than_tokens() -> None:
    assert predict(small_model(num_queries=500), (33, 33)).logits.shape[2] == 25 + 9 + 4 + 1


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "tf_efficientnet_lite0", "lcnet_035"])
def test_other_backbones(backbone: str) -> None:
    model = small_model("multi-scale", backbone=backbone)
    assert predict(model, (70, 50)).logits.isfinite().all()
    early = [name for name, parameter in model.backbone.named_parameters() if not parameter.requires_grad]
    late = [name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad]
    assert early
    assert late
    assert [name for name, _ in model.backbone.named_parameters()] == early + late
    assert not [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize(("backbone", "message"), [
    ("resnet5O", "timm has no model named 'resnet5O'"), ("test_vit", "feature maps at strides")])
def test_backbones_that_do_not_fit(backbone: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model(backbone=backbone)


def test_neighbours_in_a_batch_do_not_change_a_image() -> None:
    model = small_model()
    torch.manual_seed(1)
    images = [torch.randn(3, 64, 96), torch.randn(3, 64, 96)]
    with torch.no_grad():
        alone = model(ImageBatch.from_images(images[:1]))
        together = model(ImageBatch.from_images(images))
    torch.testing.assert_close(together.boxes[:, :1], alone.boxes, atol=1e-5, rtol=0)


def test_padding_is_not_read() -> None:
    """Noise in the padding of the maps changes nothing after the backbone."""
    model = small_model()
    batch = ImageBatch.from_images([torch.randn(3, 64, 64), torch.randn(3, 128, 128)])
    with torch.no_grad():
        pyramid = model.pyramid(model.backbone(batch))
        noise = torch.randn_like(pyramid.tokens) * pyramid.padding[..., None]
        noisy = replace(pyramid, tokens=pyramid.tokens + noise)
        keep = ~pyramid.padding
        torch.testing.assert_close(model.encoder(noisy).tokens[keep], model.encoder(pyramid).tokens[keep])


def test_published_start() -> None:
    model = DeformableDETR(ModelConfig.preset("multi-scale", backbone="test_resnet", num_encoder_layers=1,
                                              num_decoder_layers=1))
    attention = model.encoder.layers[0].attention
    offsets = attention.sampling_offsets.bias.view(8, 4, 4, 2)
    assert (attention.sampling_offsets.weight == 0).all()
    assert (attention.attention_weights.weight == 0).all()
    torch.testing.assert_close(offsets[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
    torch.testing.assert_close(offsets[1, 2], torch.tensor([[1.0, 1], [2, 2], [3, 3], [4, 4]]))   # not sqrt(2)
    head = model.decoder.heads.shared
    assert head.classify.bias.tolist() == pytest.approx([-math.log(99)] * 91)
    assert (head.locate[-1].weight == 0).all()
    assert head.locate[-1].bias.tolist() == [0, 0, -2, -2]


@pytest.mark.parametrize(("preset", "biases"), [("refine", [-2, 0]), ("two-stage", [0, 0])])
def test_published_start_of_refining_heads(preset: str, biases: list[float]) -> None:
    model = small_model(preset)
    assert [head.locate[-1].bias[2].item() for head in model.decoder.heads.layers] == biases


def test_compiles_and_exports_whole() -> None:
    """Without the type checks of the other tests, which a compiler cannot see through."""
    program = Path(__file__).parent / "compile_and_export.py"
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
