"""Everything about one detector on one data set, as a page in a single file."""

from pathlib import Path

from deformable_detr.evaluation import CocoCurves, CocoMetrics
from deformable_detr.files import write_whole
from deformable_detr.report.content import Subject, build_content
from deformable_detr.report.gallery import NEITHER, RIGHT, WRONG
from deformable_detr.web.pages import render_page

FILE_NAME = "report.html"
COLOURS = {"right": f"rgb{RIGHT}", "wrong": f"rgb{WRONG}", "neither": f"rgb{NEITHER}"}


def report_file(path: Path) -> Path:
    """The file for a report at `path`: the path itself where it ends in .html, else a file in that folder.

    The folder is made. Raises ValueError for a path that can be neither, OSError where the folder cannot be made.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        if path.is_file():
            raise ValueError(f"report: expected a folder, or a file whose name ends in .html, got the file {path}")
        path = path / FILE_NAME
    if path.is_dir():
        raise ValueError(f"report: expected a file, got the folder {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_report(file: Path, subject: Subject, metrics: CocoMetrics, curves: CocoCurves) -> None:
    """Write the page; `metrics` and `curves` are the evaluator's. An older file is replaced as a whole.

    Raises DataError for an image that cannot be read, OSError where the file cannot be written.
    """
    content = build_content(subject, metrics, curves)
    write_whole(file, render_page("report/page.html.jinja", **vars(content), colours=COLOURS))
