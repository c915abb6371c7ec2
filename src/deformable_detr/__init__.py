"""Deformable DETR (arXiv 2010.04159) in plain Python: `docs/reading.md` is the way through it."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.detect.detector import Detector
    from deformable_detr.detections import Detections
    from deformable_detr.ops import fused_ms_deform_attn, ms_deform_attn
    from deformable_detr.papers import DeformableDETR, ModelConfig, build_model
    from deformable_detr.structures import ImageBatch, Target

__version__ = "0.1.0"

__all__ = ["DeformableDETR", "Detections", "Detector", "ImageBatch", "ModelConfig", "Target",
           "build_model", "fused_ms_deform_attn", "ms_deform_attn"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.detect.detector": "Detector",
    "deformable_detr.detections": "Detections",
    "deformable_detr.ops": "fused_ms_deform_attn ms_deform_attn",
    "deformable_detr.papers": "DeformableDETR ModelConfig build_model",
    "deformable_detr.structures": "ImageBatch Target",
})
