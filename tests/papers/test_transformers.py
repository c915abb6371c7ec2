"""DETR and DAB-DETR beside those of `transformers`, with the same random weights: outputs, padding, losses."""

from typing import Any

import pytest
import torch
from torch import nn

from deformable_detr import ImageBatch, ModelConfig, Target, build_model
from deformable_detr.model.network import Network
from deformable_detr.papers import build_criterion
from deformable_detr.structures import Predictions
from deformable_detr.weights import to_official
from helpers.huggingface import in_names_of_transformers

SIZES = {"width": 32, "num_heads": 4, "num_encoder_layers": 2, "num_decoder_layers": 3, "ffn_width": 64,
         "num_queries": 9, "num_classes": 5, "dropout": 0.0, "backbone": "test_resnet"}
PRESETS = ["detr", "detr-dc5", "dab-detr", "dab-detr-dc5"]
TARGETS = [Target(torch.tensor([1, 4]), torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.2, 0.7, 0.1, 0.1]])),
           Target(torch.tensor([0]), torch.tensor([[0.4, 0.3, 0.5, 0.4]]))]


def ours(preset: str) -> Network:
    """Weights that make queries differ, and that leave out no part by being zero.

    DAB-DETR's boxes move little: near 0 and 1 `transformers` clamps them at another epsilon than the paper.
    """
    torch.manual_seed(3)
    model = build_model(ModelConfig.preset(preset, **SIZES)).eval()
    for name, parameter in model.named_parameters():
        if name.startswith(("pyramid.", "encoder.", "decoder.")):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter, gain=0.5 if "dab" in preset and "locate" in name else 1.7)
            else:
                nn.init.normal_(parameter, mean=float(name.endswith("norm.weight")), std=0.2)
    return model


def theirs(model: Network) -> Any:
    """The same detector of `transformers`, with the same weights."""
    from transformers import DabDetrConfig, DabDetrForObjectDetection, DetrConfig, DetrForObjectDetection

    config = model.config
    kinds: dict[str, tuple[type, type, dict[str, Any]]] = {
        "detr": (DetrConfig, DetrForObjectDetection, {"d_model": config.width}),
        "dab-detr": (DabDetrConfig, DabDetrForObjectDetection,
                     {"hidden_size": config.width, "cls_loss_coefficient": 1})}
    config_class, model_class, sizes = kinds[config.paper]
    settings: dict[str, Any] = {
        f"{stack}_{name}": value for stack in ("encoder", "decoder") for name, value in
        {"layers": SIZES["num_encoder_layers" if stack == "encoder" else "num_decoder_layers"],
         "attention_heads": config.num_heads, "ffn_dim": config.ffn_width}.items()}
    # DETR's auxiliary losses of `transformers` normalise what goes into the next layer, which changes the outputs.
    auxiliary = config.paper == "dab-detr"
    described = config_class(**settings, **sizes, dilation=config.dilation, dropout=0.0, auxiliary_loss=auxiliary,
                             num_queries=config.num_queries, num_labels=config.num_classes, backbone=config.backbone)
    other = model_class(described).eval()
    state = in_names_of_transformers(to_official(model.state_dict(), config), config.paper)
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if "num_batches_tracked" not in name]
    return other


def looked_at(other: Any, batch: ImageBatch, targets: list[Target] | None = None) -> Any:
    labels = targets and [{"class_labels": target.labels, "boxes": target.boxes} for target in targets]
    return other(pixel_values=batch.images, pixel_mask=(~batch.padding).long(), labels=labels)


@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_outputs_agree_with_and_without_padding(preset: str) -> None:
    model = ours(preset)
    other = theirs(model)
    for sizes in ([(97, 130)], [(64, 64), (64, 64)], [(65, 130), (97, 70)]):
        batch = ImageBatch.from_images([torch.randn(3, *size) for size in sizes])
        found, expected = model(batch), looked_at(other, batch)
        assert found.boxes[-1].std(1).min() > 1e-4     # the queries differ
        torch.testing.assert_close(found.logits[-1], expected.logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.boxes[-1], expected.pred_boxes, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_losses_and_gradients_agree(preset: str) -> None:
    model = ours(preset)
    other = theirs(model)
    batch = ImageBatch.from_images([torch.randn(3, 97, 70), torch.randn(3, 64, 120)])
    answer = looked_at(other, batch, TARGETS)
    predictions = model(batch)
    if not other.config.auxiliary_loss:
        predictions = Predictions(predictions.logits[-1:], predictions.boxes[-1:], no_object=predictions.no_object)
    losses = build_criterion(model.config)(predictions, TARGETS)
    assert len(losses.parts) == 3 * len(predictions.logits)
    parts = {name: part.item() for name, part in losses.parts.items()}
    assert parts == pytest.approx({name: answer.loss_dict[name].item() for name in parts}, rel=1e-4)
    assert losses.total.item() == pytest.approx(answer.loss.item(), rel=1e-4)
    losses.total.backward()
    answer.loss.backward()
    name = {"detr": "class_labels_classifier", "dab-detr": "class_embed"}[model.config.paper]
    torch.testing.assert_close(model.decoder.heads.of_layer(0).classify.weight.grad,
                               other.get_submodule(name).weight.grad, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(model.pyramid.projections[0].weight.grad, other.model.input_projection.weight.grad,
                               atol=1e-4, rtol=1e-3)
