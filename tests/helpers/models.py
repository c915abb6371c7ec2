"""Small detectors for tests: a backbone of 0.1 million parameters, one or two layers, few queries."""

from pathlib import Path

import torch

from deformable_detr import DeformableDETR, ModelConfig, build_model
from deformable_detr.model.network import Network
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo, save

SMALL = {"backbone": "test_efficientnet", "width": 32, "num_heads": 4, "num_encoder_layers": 1,
         "num_decoder_layers": 2, "ffn_width": 48, "num_queries": 11, "num_classes": 3, "dropout": 0.0}
TINY = ModelConfig(backbone="test_resnet", width=64, num_heads=2, num_points=2, num_encoder_layers=1,
                   num_decoder_layers=2, ffn_width=32, num_queries=20, num_classes=3)
TINY_INFO = ModelInfo(("cat", "dog", "猫"), (1, 17, 90), Preprocessing(size=64, max_size=96))


def small_model(preset: str = "two-stage", **changes: object) -> Network:
    """The same random weights at every call, of any paper's preset; a dilated one has a backbone that can be."""
    torch.manual_seed(0)
    dilated = {"backbone": "test_resnet"} if "dc5" in preset else {}
    return build_model(ModelConfig.preset(preset, **{**SMALL, **dilated, **changes})).eval()


def save_tiny(path: Path, info: ModelInfo = TINY_INFO) -> Path:
    """A file of weights of TINY, always the same; 60 detections an image at a threshold of 0."""
    torch.manual_seed(0)
    save(path, DeformableDETR(TINY), info)
    return path
