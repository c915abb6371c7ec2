"""Charts in one style, as PNG files and as SVG that takes the colours of a page."""

import io
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from deformable_detr.fonts import Lettering, lettering
from deformable_detr.text import printable

# The light colours of charts and pages. Lines have the blue, vermilion and green of Okabe and Ito's palette, which
# most colour-blind readers can tell apart.
PALETTE = {"ink": "#1d2126", "soft": "#5b646e", "rule": "#d9dee3", "line0": "#0072b2", "line1": "#d55e00",
           "line2": "#00855f"}
STYLE: dict[Any, Any] = {
    "axes.edgecolor": PALETTE["rule"], "axes.labelcolor": PALETTE["soft"], "axes.titlecolor": PALETTE["ink"],
    "text.color": PALETTE["soft"], "xtick.color": PALETTE["soft"], "ytick.color": PALETTE["soft"],
    "axes.prop_cycle": cycler(color=[PALETTE["line0"], PALETTE["line1"], PALETTE["line2"], "#cc79a7"],
                              linestyle=["-", "--", ":", "-."]),
    "axes.grid": True, "axes.axisbelow": True, "grid.color": PALETTE["rule"], "axes.spines.top": False,
    "axes.spines.right": False, "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0,
    "xtick.major.pad": 6, "ytick.major.pad": 5, "lines.linewidth": 2,
    "axes.titlesize": "large", "axes.titlelocation": "left", "legend.fontsize": "medium",
    "text.parse_math": False,       # a name may hold "$"
    "font.family": "DejaVu Sans",   # comes with matplotlib
    "svg.fonttype": "none",         # text stays text
}
PAGE_CHART = (360, 230)             # units of the SVG, which are pixels on a telephone
MAX_LETTERS = 40

_settings = threading.RLock()       # matplotlib has one set for the whole process


@dataclass(frozen=True)
class Chart:
    """A chart for a page."""

    title: str      # for the page to show
    svg: str        # an element


@contextmanager
def style(font_size: float = 10) -> Iterator[None]:
    """The style, for building and saving figures. One thread at a time can be inside."""
    with _settings, matplotlib.rc_context({**STYLE, "font.size": font_size}):
        yield


def label(name: str) -> str:
    """A name from outside as `write` writes it: shortened in its middle, in letters that there are fonts for."""
    return _lettering(name).text


def write(text: Text, name: str) -> None:
    """Put a name from outside into a text of a figure, in a font that has its letters."""
    found = _lettering(name)
    text.set_text(found.text)
    if found.file:
        text.set_fontproperties(FontProperties(fname=str(found.file), size=text.get_fontsize()))


def _lettering(name: str) -> Lettering:
    short = name if len(name) <= MAX_LETTERS else f"{name[:MAX_LETTERS // 2]}…{name[-MAX_LETTERS // 2:]}"
    return lettering(printable(short))


def draw_lines(axes: Axes, x: Sequence[float], lines: Mapping[str, Sequence[float]], x_label: str, *,
               x_end: float = 1, y_end: float = 1) -> None:
    """Named lines over `x`, both axes from 0 to their end; values that are not finite are left out."""
    is_empty = True
    for name, values in lines.items():
        points = [(across, up) for across, up in zip(x, values, strict=True) if np.isfinite(up)]
        is_point = len(points) == 1
        axes.plot(*np.array(points).reshape(-1, 2).T, label=name, marker="o" if is_point else "", clip_on=not is_point)
        is_empty = is_empty and not points
    axes.set(xlim=(0, x_end), ylim=(0, y_end), xlabel=x_label)
    if is_empty:
        note_empty(axes)
    elif len(lines) > 1:
        add_legend(axes)


def note_empty(axes: Axes) -> None:
    """Write that there is nothing to draw, so that nobody takes it for a failure."""
    axes.text(0.5, 0.5, "no values", ha="center", va="center", transform=axes.transAxes)


def add_legend(axes: Axes) -> None:
    """The names of what is drawn, in a row above the axes."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, borderaxespad=0, borderpad=0.2,
                columnspacing=1.2, handlelength=1.8)


def set_title(axes: Axes, title: str) -> None:
    """A title above the axes, and above their legend."""
    axes.set_title(title, pad=22 if axes.get_legend() else 6)


def count_on(axes: Axes, direction: Literal["x", "y"]) -> None:
    """Make an axis one of counts: whole numbers, from 0 to at least 1."""
    axis = axes.xaxis if direction == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter("{x:,.0f}")
    end = max(1.0, max(axis.get_view_interval()))
    if direction == "x":
        axes.set_xlim(0, end)
    else:
        axes.set_ylim(0, end)


def line_chart(title: str, x_label: str, x: Sequence[float], lines: Mapping[str, Sequence[float]], *,
               x_end: float = 1, y_end: float = 1, counted: bool = False) -> Chart:
    """A chart for a page; `counted` where `x` are whole numbers. See `draw_lines`."""
    with style(font_size=12):
        width, height = PAGE_CHART
        figure = Figure((width / 72, height / 72))
        axes = figure.add_axes((44 / width, 44 / height, 1 - 54 / width, 1 - 74 / height))
        draw_lines(axes, x, lines, x_label, x_end=x_end, y_end=y_end)
        if counted:
            count_on(axes, "x")
        return Chart(title, to_svg(figure))


def to_png(figure: Figure, dpi: float) -> bytes:
    """A PNG file; to be called within `style`."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def to_svg(figure: Figure) -> str:
    """An SVG element, as wide as the page lets it be, in the page's font and colours; to be called within `style`."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = file.getvalue().partition("<svg ")[2]
    drawn = re.sub(r' (?:width|height)="[\d.]+pt"', "", drawn)
    drawn = re.sub(r' id="[\w.]+_\d+"', "", drawn)         # would be the same in every chart of a page
    drawn = re.sub(r" font-family: [^;]*;", "", drawn)
    drawn = re.sub(r'"[^"]*"', lambda value: re.sub(r"(\.\d)\d+", r"\1", value[0]), drawn)    # tenths of a pixel
    for name, colour in PALETTE.items():
        drawn = drawn.replace(colour, f"var(--{name})")
    return f'<svg aria-hidden="true" {" ".join(drawn.split())}'
