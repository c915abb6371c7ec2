"""Predictions and targets to a loss."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.criterion.losses import Losses, SetLoss
    from deformable_detr.criterion.matching import NonFiniteError

__all__ = ["Losses", "NonFiniteError", "SetLoss"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.criterion.losses": "Losses SetLoss",
    "deformable_detr.criterion.matching": "NonFiniteError",
})
