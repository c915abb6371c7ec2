"""Everything about one detector on one data set, as a page in a single file."""

from pathlib import Path

from deformable_detr.evaluation import CocoCurves, CocoMetrics
from deformable_detr.files import write_whole
from deformable_detr.report.content import Subject, build_content
from deformable_detr.report.gallery import NEITHER, RIGHT, WRONG
from deformable_detr.web.pages import render_page

COLOURS = {"right": f"rgb{RIGHT}", "wrong": f"rgb{WRONG}", "neither": f"rgb{NEITHER}"}


def write_report(file: Path, subject: Subject, metrics: CocoMetrics, curves: CocoCurves) -> None:
    """Write the page; `metrics` and `curves` are the evaluator's. An older file is replaced as a whole.

    Raises DataError for an image that cannot be read, OSError where the file cannot be written.
    """
    content = build_content(subject, metrics, curves)
    write_whole(file, render_page("report/page.html.jinja", **vars(content), colours=COLOURS))
