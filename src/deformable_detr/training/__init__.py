"""Predictions and targets in, better weights out."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.criterion.losses import Losses, SetLoss
    from deformable_detr.criterion.matching import NonFiniteError
    from deformable_detr.papers import build_criterion
    from deformable_detr.training.loop import Training
    from deformable_detr.training.optimizer import build_optimizer
    from deformable_detr.training.recipe import Recipe

__all__ = ["Losses", "NonFiniteError", "Recipe", "SetLoss", "Training", "build_criterion", "build_optimizer"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.criterion.losses": "Losses SetLoss",
    "deformable_detr.criterion.matching": "NonFiniteError",
    "deformable_detr.papers": "build_criterion",
    "deformable_detr.training.loop": "Training",
    "deformable_detr.training.optimizer": "build_optimizer",
    "deformable_detr.training.recipe": "Recipe",
})
