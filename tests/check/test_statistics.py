"""The charts of the contact sheet, for data sets with little variety."""

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deformable_detr.check import Limits
from deformable_detr.check.contact_sheet import draw_sheet
from deformable_detr.check.statistics import draw_statistics, measure
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.plots import style
from helpers.synthetic import box


def splits_of(write_data: Any, **lists: Any) -> dict[str, Annotations]:
    findings = Findings()
    folder = DataFolder(write_data(**lists), findings)
    return {split: folder.read(split, findings) for split in folder.splits}


def charts_of(splits: dict[str, Annotations]) -> list[Axes]:
    with style():
        figure = Figure((16, 8), layout="constrained")
        charts = list(figure.subplots(2, 3).ravel())
        draw_statistics(charts, splits, Limits())
        figure.draw_without_rendering()
    return charts


def shares(axes: Axes) -> list[float]:
    """The width of each bar that has a height, as a share of the axis."""
    low, high = np.log2(axes.get_xlim())
    return [float(np.log2((bar.get_x() + bar.get_width()) / bar.get_x()) / (high - low))
            for bar in axes.patches if bar.get_height()]


@pytest.mark.parametrize("side", [1, 12, 16.5])
def test_equal_objects_are_a_bar_that_can_be_seen(write_data: Any, side: float) -> None:
    splits = splits_of(write_data, annotations=[box(number, 7, 20, [number, 2, side, side]) for number in range(1, 5)])
    sizes, shapes = charts_of(splits)[3:5]
    assert min(shares(sizes)) > 0.02
    assert min(shares(shapes)) > 0.2
    for axes in (sizes, shapes):
        assert sum(bar.get_height() for bar in axes.patches) >= 8     # of two splits
        assert len([text for text in axes.get_xticklabels() if text.get_text()]) >= 2


@pytest.mark.parametrize("annotations", [[], [box(1, 7, 20, [2, 3, 10, 12])]])
def test_counts_are_whole_numbers(write_data: Any, annotations: list[dict]) -> None:
    charts = charts_of(splits_of(write_data, annotations=annotations))
    axes = [charts[0].xaxis, charts[1].xaxis, *(chart.yaxis for chart in charts[1:5])]
    for axis in axes:
        low, high = axis.get_view_interval()
        texts = [text.get_text() for place, text in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
                 if low <= place <= high]
        assert all(re.fullmatch(r"[\d,]+", text) for text in texts), texts
        assert len(set(texts)) == len(texts) > 1


def test_an_empty_chart_says_so(write_data: Any) -> None:
    charts = charts_of(splits_of(write_data, annotations=[]))
    for place in (0, 3, 4):
        assert "no values" in [text.get_text() for text in charts[place].texts]
    assert charts[0].get_legend() is None


def test_boxes_are_measured_as_they_are_trained_on(write_data: Any) -> None:
    """Clipped to their images: one that leaves its image has its centre in it."""
    train = splits_of(write_data, annotations=[box(1, 7, 20, [30, 20, 1e6, 1e9])])["train"]
    measured = measure(train, Limits())
    assert measured.shapes.tolist() == [1]
    assert measured.centres.tolist() == [[35 / 40, 25 / 30]]


def test_names_in_any_script(write_data: Any) -> None:
    names = ["猫", "$\\frac{", "हिन्दी 😀 🦄"]
    splits = splits_of(write_data, categories=[{"id": number, "name": name} for number, name in enumerate(names, 4)],
                       annotations=[box(number, 7, number, [2, 3, 10, 12]) for number in (4, 5, 6)])
    assert len({text.get_text() for text in charts_of(splits)[0].get_yticklabels()}) == 3
    assert draw_sheet(splits, Limits())
