"""The page of an explanation: its data as JSON in a template, as a file or in the frame of a notebook."""

import html
import json
from typing import TYPE_CHECKING

from deformable_detr.explain.page_data import page_data
from deformable_detr.web.pages import render_page

if TYPE_CHECKING:
    from deformable_detr.explain.explanation import Explanation

TEMPLATE = "explain/page/page.html.jinja"
# A script element ends at "</script", wherever that stands; as JSON these letters can be written otherwise.
IN_SCRIPT = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"})
FRAME_HEIGHT = 760      # pixels


def render_explanation(explanation: "Explanation") -> bytes:
    """The page as UTF-8."""
    data = page_data(explanation)
    text = json.dumps(data, separators=(",", ":")).translate(IN_SCRIPT)     # ASCII only
    return render_page(TEMPLATE, data=text, title=data["image"]["name"])


def framed(explanation: "Explanation") -> str:
    """The page inside a frame, which cannot reach what is around it."""
    page = html.escape(render_explanation(explanation).decode())
    return (f'<iframe sandbox="allow-scripts" style="width: 100%; height: {FRAME_HEIGHT}px; border: 0" '
            f'title="explanation" srcdoc="{page}"></iframe>')
