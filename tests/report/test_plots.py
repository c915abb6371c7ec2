"""Coordinates of lines."""

from math import inf, nan

import pytest

from deformable_detr.report.plots import BOTTOM, LEFT, RIGHT, TOP, plot


def points(line: str) -> list[tuple[float, ...]]:
    return [tuple(map(float, point.split(","))) for point in line.split()]


def test_a_line_fills_its_axes() -> None:
    drawn = plot("t", "x", [0, 1, 2], {"a": [0, 5, 10]}, x_end=2, y_end=10)
    assert points(drawn.lines["a"]) == [(LEFT, BOTTOM), ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2), (RIGHT, TOP)]


def test_what_is_not_finite_is_left_out_and_one_point_is_a_mark() -> None:
    drawn = plot("t", "x", [0, 0.5, 1], {"a": [nan, 1, inf], "b": [nan] * 3, "c": [0, nan, 1]})
    assert drawn.names == ["a", "b", "c"]
    assert drawn.marks == {"a": [(f"{(LEFT + RIGHT) / 2:.1f}", f"{TOP:.1f}")]}
    assert points(drawn.lines["c"]) == [(LEFT, BOTTOM), (RIGHT, TOP)]


def test_level_stretches_need_their_ends_alone() -> None:
    drawn = plot("t", "x", [0, 0.2, 0.4, 0.6, 0.8, 1], {"a": [1, 1, 1, 0, 0, 0]})
    assert len(points(drawn.lines["a"])) == 4


@pytest.mark.parametrize(("end", "labels"), [
    (1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]), (5, ["0", "1", "2", "3", "4", "5"]),
    (12, ["0", "5", "10"]), (300, ["0", "100", "200", "300"]),
    (0.025, ["0", "0.005", "0.01", "0.015", "0.02", "0.025"]),
])
def test_ticks_are_round_numbers(end: float, labels: list[str]) -> None:
    drawn = plot("t", "x", [0, 1], {"a": [0, 1]}, x_end=end)
    assert [tick.label for tick in drawn.x_ticks] == labels
    assert drawn.x_ticks[0].place == LEFT


@pytest.mark.parametrize("end", [1e-300, 1e300, 1.7e308])
def test_any_extent_has_ticks(end: float) -> None:
    assert 2 <= len(plot("t", "x", [], {}, y_end=end).y_ticks) <= 7
