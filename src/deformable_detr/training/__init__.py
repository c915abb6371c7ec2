"""Predictions and targets in, better weights out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deformable_detr.training.recipe import Recipe, build_optimizer

if TYPE_CHECKING:
    from deformable_detr.training.loop import Training
    from deformable_detr.training.losses import Losses, SetLoss
    from deformable_detr.training.matching import NonFiniteError

__all__ = ["Losses", "NonFiniteError", "Recipe", "SetLoss", "Training", "build_optimizer"]

_HOMES = {"Losses": "losses", "NonFiniteError": "matching", "SetLoss": "losses", "Training": "loop"}


def __getattr__(name: str) -> Any:
    # The recipe knows no torch, the losses no Accelerate: each is imported where it is used.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
