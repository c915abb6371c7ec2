"""Checks of a data set, and its repair."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.check.checkup import Checkup, check_data, check_splits
    from deformable_detr.check.limits import Limits

__all__ = ["Checkup", "Limits", "check_data", "check_splits"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.check.checkup": "Checkup check_data check_splits",
    "deformable_detr.check.limits": "Limits",
})
