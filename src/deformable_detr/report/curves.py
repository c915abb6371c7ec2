"""Training curves: losses and AP over the epochs, as an image file and as charts for a page."""

import math
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure

from deformable_detr.plots import Chart, count_on, draw_lines, line_chart, set_title, style, to_png

# Charts, and the columns of the run's table that each of them shows.
CURVES = {"loss": ("loss",), "AP": ("AP", "AP50", "AP75"), "parts of the loss": ("loss_ce", "loss_bbox", "loss_giou")}
MIN_EPOCHS = 5      # on the axis: the first epochs begin a curve
MIN_TOP = 0.1       # of the other axis: an AP of 0.001 is near the bottom

Columns = Mapping[str, Sequence[float]]


def draw_curves(columns: Columns) -> bytes:
    """All charts side by side, as a PNG file; `columns` are those of the run's table, "epoch" among them."""
    charts = list(_charts(columns))
    with style():
        figure = Figure((5 * len(charts), 4), layout="constrained")
        for axes, (title, lines, y_end) in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
            draw_lines(axes, columns["epoch"], lines, "epoch", x_end=_last_epoch(columns), y_end=y_end)
            count_on(axes, "x")
            set_title(axes, title)
        return to_png(figure, dpi=120)


def curve_charts(columns: Columns) -> list[Chart]:
    """All charts for a page."""
    return [line_chart(title, "epoch", columns["epoch"], lines, x_end=_last_epoch(columns), y_end=y_end, counted=True)
            for title, lines, y_end in _charts(columns)]


def _charts(columns: Columns) -> Iterator[tuple[str, Columns, float]]:
    """Title, lines and upper end of every chart that the table has columns for."""
    for title, names in CURVES.items():
        lines = {name: columns[name] for name in names if name in columns}
        if lines:
            highest = max((value for values in lines.values() for value in values if math.isfinite(value)), default=0)
            yield title, lines, max(1.05 * highest, MIN_TOP)


def _last_epoch(columns: Columns) -> float:
    return max(MIN_EPOCHS, *columns["epoch"])
