"""Charts: names in any script, single points, whole numbers, and SVG that fits into a page."""

import io
import itertools
import re
import threading
from math import inf, nan

import matplotlib
import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from deformable_detr import plots

NAMES = ["猫", "狗", "кот", "Ελλ", "हिन्दी", "😀", "🦄", "$x_1$", "$\\frac{$", "a\nb\x1b[31m", "\udcff", "<b>&\"'"]


def drawn(names: list[str]) -> bytes:
    with plots.style():
        figure = Figure((3, 3))
        for place, name in enumerate(names):
            plots.write(figure.text(0.1, place / len(names), "", fontsize=20), name)
        return plots.to_png(figure, dpi=50)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(png)))


def test_names_in_any_script_are_drawn_and_differ() -> None:
    """Warnings are errors here, and matplotlib warns of letters that a font does not have."""
    assert len({plots.label(name) for name in NAMES}) == len(NAMES)
    assert plots.label("$x_1$") == "$x_1$"
    assert plots.label("кот Ελλ") == "кот Ελλ"
    assert plots.label("a\nb") == "a\\nb"
    assert drawn(NAMES)
    for name, other in itertools.pairwise(NAMES):
        assert not np.array_equal(pixels(drawn([name])), pixels(drawn([other])))


def test_long_names_keep_their_ends() -> None:
    assert plots.label("a" * 50 + "b") == "a" * 20 + "…" + "a" * 19 + "b"


@pytest.mark.parametrize("values", [[nan, 0.5, inf], [0.2]])
def test_a_single_value_is_a_point(values: list[float]) -> None:
    with plots.style():
        axes = Figure().subplots()
        plots.draw_lines(axes, range(len(values)), {"a": values, "b": [0.1] * len(values)}, "x")
    assert axes.lines[0].get_marker() == "o"
    assert axes.get_xlim() == axes.get_ylim() == (0, 1)
    assert [text.get_text() for text in axes.get_legend().texts] == ["a", "b"]


def test_nothing_to_draw_is_said() -> None:
    chart = plots.line_chart("t", "x", [0, 1], {"a": [nan, nan], "b": [inf, nan]})
    assert ">no values</text>" in chart.svg


@pytest.mark.parametrize("end", [0, 0.4, 1, 3, 17, 12345])
def test_counts_are_whole_numbers(end: float) -> None:
    axes = Figure().subplots()
    axes.set_ylim(0, max(end, 1e-9))
    plots.count_on(axes, "y")
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    assert ticks
    assert all(re.fullmatch(r"[\d,]+", tick) for tick in ticks)
    assert ticks[0] == "0"
    assert len(ticks) == len(set(ticks)) > 1


def test_svg_takes_font_and_colours_of_the_page() -> None:
    lines = {"IoU 0.75": [0.123456, 0.5], "<b>&\"$x$": [1, 0]}
    first, second = (plots.line_chart(title, "re<call", [0, 1], lines).svg for title in "ab")
    assert first.startswith("<svg ")
    assert first.endswith("</svg>")
    assert ">IoU 0.75</text>" in first
    assert ">re&lt;call</text>" in first
    assert "<b>" not in first
    assert "font-family" not in first
    for name, colour in plots.PALETTE.items():
        assert colour not in first
        assert f"var(--{name})" in first or name in ("ink", "line2")
    assert not set(re.findall(r' id="([^"]+)"', first)) & set(re.findall(r' id="([^"]+)"', second))
    assert len(first) < 12_000


def test_settings_of_matplotlib_are_as_before_also_with_threads() -> None:
    before = dict(matplotlib.rcParams)
    threads = [threading.Thread(target=plots.line_chart, args=("t", "x", [0, 1], {"a": [0, 1]})) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(matplotlib.rcParams) == before


