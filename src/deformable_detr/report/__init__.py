"""The results of an evaluation as one page: metrics, curves, errors and images."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.report.content import Subject
    from deformable_detr.report.history import History, read_history
    from deformable_detr.report.page import write_report

__all__ = ["History", "Subject", "read_history", "write_report"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.report.content": "Subject",
    "deformable_detr.report.history": "History read_history",
    "deformable_detr.report.page": "write_report",
})
