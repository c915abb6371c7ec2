"""Files of any format to annotations."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.datasets.annotations import Annotations
    from deformable_detr.datasets.findings import DataError, Findings
    from deformable_detr.datasets.folder import DataFolder

__all__ = ["Annotations", "DataError", "DataFolder", "Findings"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.datasets.annotations": "Annotations",
    "deformable_detr.datasets.findings": "DataError Findings",
    "deformable_detr.datasets.folder": "DataFolder",
})
