"""Lines over two axes, as coordinates for the page to draw: it follows the reader's colours and widths."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 230                            # of the whole, in units that are pixels on a telephone
LEFT, RIGHT, TOP, BOTTOM = 40, 352, 10, 190         # of the axes
NUM_TICKS = 5

Values = Sequence[float]


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and the number there."""

    place: float
    label: str


@dataclass(frozen=True)
class Plot:
    """A drawing of lines, by name; `points` are those of an SVG polyline."""

    title: str
    x_label: str
    names: list[str]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: dict[str, str]
    marks: dict[str, list[tuple[str, str]]]     # points that stand alone, as x and y
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def plot(title: str, x_label: str, x: Values, lines: Mapping[str, Values], *, x_end: float = 1,
         y_end: float = 1) -> Plot:
    """Lines over the values `x`, both axes from 0 to their end; values that are not finite are left out."""

    def place_x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * min(max(value / x_end, 0), 1)

    def place_y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * min(max(value / y_end, 0), 1)

    points = {name: [(place_x(across), place_y(up)) for across, up in zip(x, values, strict=True) if math.isfinite(up)]
              for name, values in lines.items()}
    return Plot(title, x_label, list(lines), [Tick(round(place_x(value), 1), f"{value:g}") for value in _ticks(x_end)],
                [Tick(round(place_y(value), 1), f"{value:g}") for value in _ticks(y_end)],
                {name: " ".join(f"{across:.1f},{up:.1f}" for across, up in _corners(line))
                 for name, line in points.items() if len(line) > 1},
                {name: [(f"{across:.1f}", f"{up:.1f}") for across, up in line]
                 for name, line in points.items() if len(line) == 1})


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 to the end, about five."""
    rough = end / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [number * step for number in range(math.floor(end / step + 1e-9) + 1)]


def _corners(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without the points inside level stretches."""
    inside = [before[1] == here[1] == after[1] for before, here, after in zip(line, line[1:], line[2:], strict=False)]
    return [line[0], *(point for point, skip in zip(line[1:-1], inside, strict=True) if not skip), line[-1]]
