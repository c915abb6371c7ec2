"""Small detectors for tests: a backbone of 0.1 million parameters, one or two layers, few queries."""

import torch

from deformable_detr import DeformableDETR, ModelConfig

SMALL = {"backbone": "test_efficientnet", "width": 32, "num_heads": 4, "num_encoder_layers": 1,
         "num_decoder_layers": 2, "ffn_width": 48, "num_queries": 11, "num_classes": 3, "dropout": 0.0}


def small_model(preset: str = "two-stage", **changes: object) -> DeformableDETR:
    """The same random weights at every call."""
    torch.manual_seed(0)
    return DeformableDETR(ModelConfig.preset(preset, **{**SMALL, **changes})).eval()
