"""The names that other code bases give to the same tensors."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.weights.dialects.detecting import Dialect, detect
    from deformable_detr.weights.dialects.writing import convert

__all__ = ["Dialect", "convert", "detect"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.weights.dialects.detecting": "Dialect detect",
    "deformable_detr.weights.dialects.writing": "convert",
})
