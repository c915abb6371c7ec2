"""A detector as a file of another runtime, with the proof that it is the same."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.export.exporting import Exported, export
    from deformable_detr.export.metadata import Form
    from deformable_detr.export.proof import Difference, Limits
    from deformable_detr.export.quantising import Trial
    from deformable_detr.export.sessions import ExportError

__all__ = ["Difference", "ExportError", "Exported", "Form", "Limits", "Trial", "export"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.export.exporting": "Exported export",
    "deformable_detr.export.metadata": "Form",
    "deformable_detr.export.proof": "Difference Limits",
    "deformable_detr.export.quantising": "Trial",
    "deformable_detr.export.sessions": "ExportError",
})
