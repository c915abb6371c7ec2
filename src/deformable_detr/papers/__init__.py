"""The family: each paper is one file."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.papers.config import ModelConfig
    from deformable_detr.papers.deformable_detr import DeformableDETR

__all__ = ["DeformableDETR", "ModelConfig"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.papers.config": "ModelConfig",
    "deformable_detr.papers.deformable_detr": "DeformableDETR",
})
