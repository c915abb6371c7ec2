"""What an evaluation says, as one page: numbers, curves, mistakes and pictures."""

from deformable_detr.report.content import Subject
from deformable_detr.report.history import History, read_history
from deformable_detr.report.page import FILE_NAME, report_file, write_report

__all__ = ["FILE_NAME", "History", "Subject", "read_history", "report_file", "write_report"]
