"""Files <-> weights: our own format, the published code's names, foreign checkpoints read and never run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deformable_detr.weights.native import ModelInfo, load, save
    from deformable_detr.weights.official import from_official, to_official
    from deformable_detr.weights.pickles import read_checkpoint

__all__ = ["ModelInfo", "WeightsError", "from_official", "load", "read_checkpoint", "save", "to_official"]

_HOMES = {"ModelInfo": "native", "load": "native", "save": "native", "from_official": "official",
          "to_official": "official", "read_checkpoint": "pickles"}


class WeightsError(ValueError):
    """A file of weights that cannot be used; one line, which names the file."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
