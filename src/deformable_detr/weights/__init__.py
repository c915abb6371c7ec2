"""Files of weights: our own format, those of other code bases, and where they come from."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.weights.dialects.published import from_official, to_official
    from deformable_detr.weights.foreign import save_foreign
    from deformable_detr.weights.info import ModelInfo
    from deformable_detr.weights.native import load, save
    from deformable_detr.weights.pickles import read_checkpoint
    from deformable_detr.weights.reading import read_any

__all__ = ["ModelInfo", "WeightsError", "from_official", "load", "read_any", "read_checkpoint", "save", "save_foreign",
           "to_official"]


class WeightsError(ValueError):
    """A file of weights that cannot be used; one line, which names the file."""


__getattr__, __dir__ = lazy_names({
    "deformable_detr.weights.info": "ModelInfo",
    "deformable_detr.weights.native": "load save",
    "deformable_detr.weights.foreign": "save_foreign",
    "deformable_detr.weights.pickles": "read_checkpoint",
    "deformable_detr.weights.reading": "read_any",
    "deformable_detr.weights.dialects.published": "from_official to_official",
})
