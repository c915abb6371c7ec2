"""Deformable DETR (arXiv 2010.04159) in plain Python: `docs/reading.md` is the way through it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deformable_detr.detector import Detector
    from deformable_detr.model import DeformableDETR, ModelConfig
    from deformable_detr.ops import fused_ms_deform_attn, ms_deform_attn
    from deformable_detr.structures import Detections, ImageBatch, Target

__version__ = "0.1.0"

__all__ = ["DeformableDETR", "Detections", "Detector", "ImageBatch", "ModelConfig", "Target",
           "fused_ms_deform_attn", "ms_deform_attn"]

# torch takes seconds to import: each name is fetched at its first use, so `ddetr --help` never waits for it.
_HOMES = {"DeformableDETR": "model", "ModelConfig": "model", "Detector": "detector", "Detections": "structures",
          "ImageBatch": "structures", "Target": "structures", "ms_deform_attn": "ops",
          "fused_ms_deform_attn": "ops"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
