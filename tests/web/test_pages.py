"""Pages: what comes from outside is text, and nothing else."""

import pytest
from jinja2 import TemplateNotFound, TemplateRuntimeError

from deformable_detr.plots import PALETTE
from deformable_detr.web.pages import _environment, render_page


@pytest.mark.parametrize(("filled", "text"), [
    ("{{ '<b>'|short }}", "&lt;b&gt;"), ("{{ 'a\x00\x1b'|short }}", "a\\x00\\x1b"),
    ("{{ ('a' * 90)|short }}", "a" * 79 + "…"), ("{{ 1234567|count }}", "1,234,567"), ("{{ 0.5|number }}", "0.500"),
    ("{{ nan|number }}", "-"), ("{{ 0.5|score }}", "0.50"),
])
def test_filters(filled: str, text: str) -> None:
    assert _environment().from_string(filled).render(nan=float("nan")) == text


def test_the_base_has_the_palette_and_needs_a_title() -> None:
    extending = '{% extends "web/base.html.jinja" %}{% block title %}t{% endblock %}{% block content %}c{% endblock %}'
    page = _environment().from_string(extending).render()
    for name, colour in PALETTE.items():
        assert f"--{name}: {colour};" in page
    assert "default-src 'none'" in page
    with pytest.raises(TemplateRuntimeError, match="Required block"):
        render_page("web/base.html.jinja")
    with pytest.raises(TemplateNotFound):
        render_page("web/../text.py")
