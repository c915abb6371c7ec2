"""Training curves."""

import io
from math import nan

import PIL.Image
import pytest

from deformable_detr.report.curves import Columns, curve_charts, draw_curves

ONE = {"epoch": [1.0], "loss": [17.2], "AP": [0.0003], "AP50": [nan], "loss_ce": [1.0], "other": [nan]}
UNKNOWN = {"epoch": [3.0, 4.0], "loss": [1.0, nan], "AP": [nan, nan], "AP50": [nan, nan]}


@pytest.mark.parametrize(("columns", "titles"), [
    (ONE, ["loss", "AP", "parts of the loss"]), (UNKNOWN, ["loss", "AP"]),
    ({"epoch": [1.0], "loss": [0.0]}, ["loss"]), ({"epoch": [1.0]}, []),
])
def test_charts_are_those_that_the_table_has_columns_for(columns: Columns, titles: list[str]) -> None:
    assert [chart.title for chart in curve_charts(columns)] == titles
    if titles:
        image = PIL.Image.open(io.BytesIO(draw_curves(columns)))
        assert image.size == (600 * len(titles), 480)


def test_one_epoch_is_a_point_between_whole_epochs() -> None:
    loss, ap, _ = curve_charts(ONE)
    for epoch in range(6):
        assert f">{epoch}</text>" in loss.svg
    assert ">0.5</text>" not in loss.svg
    assert ">15</text>" in loss.svg
    assert ">0.10</text>" in ap.svg         # an AP of 0.0003 does not fill the axis
    assert "<use " in loss.svg              # a marker
    assert ">no values</text>" in curve_charts(UNKNOWN)[1].svg
