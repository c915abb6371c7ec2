"""Templates filled in. A page is one file without scripts; everything it shows is in it."""

import math
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from deformable_detr.marks import marked
from deformable_detr.plots import PALETTE
from deformable_detr.text import CONTROL_CHARACTER

MAX_LETTERS = 80    # of a name


def render_page(template: str, **content: Any) -> bytes:
    """A page for a file: a template filled in, with the mark of what this package writes.

    It extends `web/base.html.jinja`; charts, which are SVG, pass through the filter `safe`.
    """
    return marked(render(template, **content))


def render(template: str, **content: Any) -> bytes:
    """A template, named by its path in the package, filled in and escaped, as UTF-8."""
    text = _environment().get_template(template).render(content)
    return text.encode(errors="backslashreplace")   # the name of a file can hold bytes that are not Unicode


@cache
def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("deformable_detr", ""), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": _number, "score": _score, "count": _count, "short": _short}
    environment.globals["palette"] = PALETTE
    return environment


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _score(value: float) -> str:
    return f"{value:.2f}"


def _count(value: int) -> str:
    return f"{value:,}"


def _short(text: str, most: int = MAX_LETTERS) -> str:
    """At most so long, with escapes for control characters."""
    cut = text if len(text) <= most else f"{text[:most - 1]}…"
    return CONTROL_CHARACTER.sub(lambda found: repr(found[0])[1:-1], cut)
