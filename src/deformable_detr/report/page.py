"""Everything about one detector on one data set, as one page that needs nothing beside it."""

import math
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from deformable_detr.evaluation import CocoCurves, CocoMetrics
from deformable_detr.files import write_whole
from deformable_detr.report.content import Content, Subject, build_content
from deformable_detr.report.gallery import NEITHER, RIGHT, WRONG

FILE_NAME = "report.html"
TEMPLATE = "page.html.jinja"
MAX_LETTERS = 80    # of a name


def report_file(path: Path) -> Path:
    """The file that a report asked for at `path` goes to: itself where it ends in .html, else one in that folder.

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
    """Write the page; an older one stays whole until the new one is. The numbers are those of the evaluator.

    Raises DataError for an image that cannot be read, OSError where the file cannot be written.
    """
    page = render(build_content(subject, metrics, curves))
    write_whole(file, page.encode(errors="backslashreplace"))   # a file's name may hold bytes that are no letters


def render(content: Content) -> str:
    """The template filled in; every text from outside is escaped."""
    colours = {"right": f"rgb{RIGHT}", "wrong": f"rgb{WRONG}", "neither": f"rgb{NEITHER}"}
    return _template().render(vars(content), colours=colours)


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": _number, "score": _score, "count": _count, "short": _short}
    source = resources.files("deformable_detr.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source)


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _score(value: float) -> str:
    return f"{value:.2f}"


def _count(value: int) -> str:
    return f"{value:,}"


def _short(text: str, most: int = MAX_LETTERS) -> str:
    return text if len(text) <= most else f"{text[:most - 1]}…"
