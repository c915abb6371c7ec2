"""The detector: ImageBatch in, Predictions out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deformable_detr.model.config import ModelConfig

if TYPE_CHECKING:
    from deformable_detr.model.deformable_detr import DeformableDETR

__all__ = ["DeformableDETR", "ModelConfig"]


def __getattr__(name: str) -> Any:
    # The config knows no torch; only the model itself is worth its seconds of import.
    if name != "DeformableDETR":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("deformable_detr.model.deformable_detr").DeformableDETR
