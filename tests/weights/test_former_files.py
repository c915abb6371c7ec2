"""Files that an earlier version wrote load and give the same predictions."""

from pathlib import Path

import numpy as np
import torch

from deformable_detr import ImageBatch, ModelConfig
from deformable_detr.detections import Postprocessing
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import load, save

FORMER = Path(__file__).parents[1] / "fixtures" / "former"


@torch.no_grad()
def test_a_file_from_before_the_family_gives_the_same_predictions(tmp_path: Path) -> None:
    model, info = load(FORMER / "two-stage.safetensors")
    assert model.config == ModelConfig.preset(
        "two-stage", backbone="test_efficientnet", width=32, num_heads=4, num_encoder_layers=1, num_decoder_layers=2,
        ffn_width=48, num_queries=11, num_classes=3, dropout=0.0, mixed_queries=True, look_forward_twice=True)
    assert info.postprocessing == Postprocessing(threshold=0.5, nms_threshold=0.7)
    assert info.preprocessing == Preprocessing(size=96, max_size=160, divisor=32)
    assert (info.names, info.category_ids) == (("ant", "bee", "cat"), (1, 5, 9))
    wide = torch.linspace(-2, 2, 3 * 64 * 96).reshape(3, 64, 96).sin()
    small = torch.linspace(2, -1, 3 * 50 * 70).reshape(3, 50, 70).cos()
    batch = ImageBatch.from_images([wide, small])
    predictions = model(batch)
    expected = np.load(FORMER / "two-stage.npz")
    np.testing.assert_allclose(predictions.logits, expected["logits"], atol=1e-5)
    np.testing.assert_allclose(predictions.boxes, expected["boxes"], atol=1e-6)

    save(tmp_path / "again.safetensors", model, info)
    again, same_info = load(tmp_path / "again.safetensors")
    assert same_info == info
    assert torch.equal(again(batch).logits, predictions.logits)
