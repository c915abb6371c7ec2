"""The scripts of the page: each parses in strict mode, and its functions compute what they say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import deformable_detr
from deformable_detr import Detector
from helpers.browsing import chromium, needs_chromium

PICTURES = Path(deformable_detr.__file__).parent / "assets" / "pictures"
SCRIPTS = sorted((Path(deformable_detr.__file__).parent / "explain" / "page").glob("*.js"))
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("page") / "page.html"
    Detector("demo", device="cpu").explain(PICTURES / "penguin.jpg").page(path)
    page = browser.new_page()
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_parses_and_begins_with_what_it_is(browser: Any, script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    page = browser.new_page()
    page.evaluate("text => { new Function(`'use strict';${text}`); }", text)
    page.close()
    assert text.removeprefix('"use strict";\n').startswith("// ")
    assert not [line for line in text.splitlines() if len(line) > 120 or line != line.rstrip() or "innerHTML" in line]


def test_packed_numbers_are_scaled(page: Any) -> None:
    unpacked = """unpack({ dtype: "uint16", shape: [2], scale: 0.5, offset: -1, data: "AQAAAQ==" }).values"""
    assert page.evaluate(f"Array.from({unpacked})") == [-0.5, 127]


def test_bilinear_weights(page: Any) -> None:
    cell = page.evaluate("""(() => {
        const { validWidth, validHeight } = data.model.levels[0];
        return cellOf({ x: (3.75) / validWidth, y: (7.5) / validHeight, level: 0 });
    })()""")     # 3.25 columns and 7 rows from the centre of the first cell
    assert (cell["column"], cell["line"]) == (3, 7)
    assert cell["shares"] == pytest.approx([0.75, 0.25, 0, 0], abs=1e-9)


def test_the_weights_of_a_head_sum_to_one(page: Any) -> None:
    sums = page.evaluate("""Array.from({ length: data.model.heads }, (_, head) => pointsOf(data.layers[0], 0)
        .filter((point) => point.head === head).reduce((sum, { weight }) => sum + weight, 0))""")
    assert sums == pytest.approx([1] * 8, abs=1e-3)


def test_all_products_of_a_head_sum_to_its_output(page: Any) -> None:
    """What the page says of one point, said of all of them."""
    difference = page.evaluate("""Math.max(...data.layers.flatMap((layer, index) => {
        const sums = data.arithmetic.layers[index];
        const made = new Float64Array(data.model.heads);
        for (const point of pointsOf(layer, data.queries.index.indexOf(data.arithmetic.queries[0]))) {
            const corners = row(sums.corners, 0).subarray(4 * point.place, 4 * point.place + 4);
            made[point.head] += point.weight * cellOf(point).shares.reduce((sum, share, corner) =>
                sum + share * corners[corner], 0);
        }
        return Array.from(row(sums.outputs, 0), (output, head) => Math.abs(output - made[head]));
    }))""")
    assert difference < 1e-3


def test_a_heat_map_peaks_where_the_weight_is(page: Any) -> None:
    peak = page.evaluate("""(() => {
        const { values, width, height } = heatOf([{ x: 0.25, y: 0.75, level: 0, weight: 1 }]);
        const cell = values.indexOf(Math.max(...values));
        return [(cell % width + 0.5) / width, (Math.floor(cell / width) + 0.5) / height];
    })()""")
    assert peak == pytest.approx([0.25, 0.75], abs=0.01)


def test_a_neighbour_is_one_cell_away(page: Any) -> None:
    distance = page.evaluate("""(() => {
        const token = nearestToken(0.5, 0.5, 1);
        return Math.abs(neighbourOf(token).column - token.column);
    })()""")
    assert distance == 1
