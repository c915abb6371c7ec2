"""The page in a browser: what a reader does, without an error and without a network."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deformable_detr
from deformable_detr import Detector
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo
from helpers.browsing import chromium, needs_chromium, opened, wait_until
from helpers.models import small_model

PICTURES = Path(deformable_detr.__file__).parent / "assets" / "pictures"
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    Detector("demo", device="cpu").explain(PICTURES / "penguin.jpg").page(path)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(params=[(1440, 1000), (390, 844)], ids=["wide", "narrow"])
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    with opened(browser, address, *request.param) as page:
        yield page


def detail(page: Any) -> str:
    return page.locator("#detail").inner_text()


def test_objects_layers_levels_and_heads(page: Any) -> None:
    objects = page.locator("#objects button")
    assert objects.count() == 60
    assert objects.nth(0).get_attribute("aria-pressed") == "true"
    assert page.locator("#picture .point").count() == 8 * 4 * 4
    page.locator("#layer").fill("0")
    assert "after layer 1: penguin 0.682" in page.locator("#legend").inner_text()
    page.locator("#levels input").nth(0).uncheck()
    assert page.locator("#picture .point").count() == 8 * 3 * 4
    for head in range(1, 8):
        page.locator("#heads input").nth(head).uncheck()
    assert page.locator("#picture .point").count() == 3 * 4
    objects.nth(1).click()
    assert "Query 2 after layer 1" in page.locator("#legend").inner_text()
    page.locator("#heard").check()
    assert page.locator("#picture rect").count() > 16


def test_a_point_in_numbers(page: Any) -> None:
    best = page.locator("#picture .point").last
    if page.viewport_size["width"] > 500:
        best.hover()
    else:
        best.tap()
    numbers = detail(page)
    assert "Head 2 Level 4 (stride 64) Point 1 Weight 0.765" in " ".join(numbers.split())
    equation = page.locator("#detail .equation").inner_text().splitlines()[0]
    rows = [line.split("\t") for line in numbers.splitlines() if line.startswith(("top", "bottom"))]
    products = [float(row[-1]) for row in rows]
    assert len(products) == 4
    sample, weight, added = (float(number) for number in re.findall(r"[-\d.]+", equation))
    assert sum(products) == pytest.approx(sample, abs=2e-4)
    assert sample * weight == pytest.approx(added, abs=1e-3)
    for row in rows:
        assert float(row[2]) * float(row[3]) == pytest.approx(float(row[4]), abs=1e-3)


def test_with_the_keyboard(page: Any) -> None:
    page.locator("#layer").focus()
    page.keyboard.press("Home")
    assert "after layer 1" in page.locator("#legend").inner_text()
    page.locator("#picture").focus()
    page.keyboard.press("ArrowRight")
    first = detail(page)
    page.keyboard.press("ArrowRight")
    assert first != detail(page)
    page.keyboard.press("ArrowLeft")
    assert detail(page) == first
    page.locator("#objects button").nth(1).focus()
    page.keyboard.press("Enter")
    assert "Query 2 " in page.locator("#legend").inner_text()


def test_the_view_is_in_the_address(page: Any, address: str) -> None:
    page.locator("[name=mode][value=token]").check()
    page.locator("#level").select_option("2")
    page.locator("#picture").click(position={"x": 120, "y": 140})
    legend = page.locator("#legend").inner_text()
    assert "of level 3" in legend
    page.wait_for_url("**#mode=token*level=2*")
    wait_until(page, "new URLSearchParams(location.hash.slice(1)).get('x') === String(state.x)")
    saved = page.url
    page.goto("about:blank")
    page.goto(saved)
    assert page.locator("#legend").inner_text() == legend
    page.goto(f"{address}#mode=object&layer=0&query=2&heads=1.3&levels=0.2&beside=1&by-head=")
    page.reload()
    assert page.locator("#picture .point").count() == 2 * 2 * 4
    assert {disc.get_attribute("fill") for disc in page.locator("#picture .point").all()} == {"#e69f00", "#cc79a7"}
    assert page.locator("#second-legend").inner_text().startswith("Query 1 ")
    page.locator("#heads input").nth(1).uncheck()
    page.wait_for_url("**heads=3*")
    page.goto("about:blank")
    page.goto(f"{address}#mode=nonsense&layer=77&query=-1&x=NaN&y=&level=9&heads=x.&beside=q")     # of anybody
    assert "after layer 3" in page.locator("#legend").inner_text()


def test_why_was_nothing_found(page: Any, address: str) -> None:
    page.locator("[name=mode][value=why]").check()
    page.locator("#picture").click(position={"x": 150, "y": 30})
    assert detail(page).count("below the threshold 0.50") == 5
    expected = Detector("demo", device="cpu").explain(PICTURES / "penguin.jpg").nearest(0.3 * 384, 0.5 * 512)
    page.goto("about:blank")
    page.goto(f"{address}#mode=why&x=0.3&y=0.5")
    rows = [line.split("\t") for line in detail(page).splitlines() if "\t" in line][1:]
    assert [row[:3] for row in rows] == [[each.name, str(each.query), f"{each.score:.3f}"] for each in expected]
    assert [row[4] for row in rows] == [each.verdict for each in expected]


def test_an_empty_place_asks_why(page: Any) -> None:
    page.locator("#picture").click(position={"x": 60, "y": 30})
    assert page.locator("[name=mode][value=why]").is_checked()
    assert "came nearest" in page.locator("#detail-title").inner_text()
    page.locator("#objects button").first.click()
    assert page.locator("[name=mode][value=object]").is_checked()


def test_two_objects_side_by_side_and_a_heat_map(page: Any) -> None:
    assert not page.locator("#second").is_visible()
    page.locator("#compared").select_option("1")
    assert page.locator("#second-legend").inner_text() == "Query 2 after layer 3: penguin 0.558"
    assert page.locator("#second-picture .point").count() == 8 * 4 * 4
    page.locator("#heat").check()
    assert page.locator("#picture .point").count() == page.locator("#second-picture .point").count() == 0
    assert page.locator("#picture g > image").count() == 1
    page.locator("[name=mode][value=token]").check()
    assert not page.locator("#second").is_visible()


def test_what_the_neighbour_of_a_token_reads(page: Any) -> None:
    page.locator("[name=mode][value=token]").check()
    page.locator("#neighbour").check()
    assert page.locator("#picture circle:not(.point)").count() == 8 * 4 * 4
    assert "pixels further" in page.locator("#legend").inner_text()


def test_the_steps_set_the_view(page: Any) -> None:
    steps = page.locator(".steps button")
    seen = []
    for step in range(steps.count()):
        steps.nth(step).click()
        seen.append(page.locator("#legend").inner_text())
    assert [text[:18] for text in seen] == ["Query 1 after laye"] * 4 + [
        "The token in row 4"]
    steps.nth(1).click()
    assert "adds to its head" in detail(page)
    page.locator("#play").click()
    page.get_by_text("Decoder layer 3 of 3").wait_for()
    page.locator("#play").click()
    assert page.locator("#layer-name").inner_text() == "Decoder layer 1 of 3"
    page.locator("#play").click()
    assert page.locator("#play").get_attribute("aria-label") == "Play the layers"


def test_the_tour_goes_on_to_its_end(page: Any) -> None:
    texts = []
    for _ in range(5):
        page.locator("#next-step").click()
        assert page.locator("#step-text > p:visible").count() == 1
        texts.append(page.locator("#step-text").inner_text())
    assert len(set(texts)) == 5
    assert page.locator("#next-step").inner_text() == "Start again"
    assert page.locator("[name=mode][value=token]").is_checked()


def test_everything_has_a_name_and_room_for_a_finger(page: Any) -> None:
    unnamed = page.evaluate("""[...document.querySelectorAll("button, input, select")].filter((each) =>
        ![each.textContent, each.ariaLabel ?? "", ...[...each.labels ?? []].map((label) => label.textContent)]
            .join("").trim())
        .map((each) => each.outerHTML)""")
    assert unnamed == []
    small = page.evaluate("""
        [...document.querySelectorAll("button, .chips label, .modes label, .options label, select")]
        .filter((each) => each.checkVisibility()).map((each) => [each.outerHTML, each.getBoundingClientRect()])
        .filter(([, area]) => area.width < 24 || area.height < 24).map(([text]) => text)""")    # WCAG 2.5.8
    assert small == []


def test_dense_attention_has_a_map_for_each_object(browser: Any, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (61, 45, 3), dtype=np.uint8)
    info = ModelInfo(("<b>cat</b>", "dog", "eel"), (1, 2, 3), Preprocessing(size=200, max_size=300))
    Detector.from_model(small_model("detr"), info).explain(image, threshold=0, top_k=3).page(tmp_path / "page.html")
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("#picture g > image").count() == 1
    assert not page.locator("#levels").is_visible()
    assert not page.locator(".when-deformable").first.is_visible()
    page.locator("[name=mode][value=token]").check()
    assert page.locator("#picture g > image").count() == 1
    assert not page.locator("#heads").is_visible()
    page.locator("#neighbour").check()
    assert "of its weight to other places" in page.locator("#legend").inner_text()
    page.close()
    assert problems == []


@pytest.mark.parametrize("source", ["detections", "nothing"])
def test_in_the_frame_of_a_notebook(browser: Any, source: str, tmp_path: Path) -> None:
    threshold = 1.0 if source == "nothing" else None
    explanation = Detector("demo", device="cpu").explain(PICTURES / "stingray.jpg", threshold)
    (tmp_path / "notebook.html").write_text(f"<!DOCTYPE html><body>{explanation._repr_html_()}")
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((tmp_path / "notebook.html").as_uri())
    inside = page.frame_locator("iframe")
    inside.locator("#layer").fill("1")
    assert "after layer 2" in inside.locator("#legend").inner_text()
    page.close()
    assert problems == []


def test_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    names = ("<img src=x onerror=alert(1)>", "\"'&amp;</script><b>", "${eel}")
    image = np.random.default_rng(0).integers(0, 256, (61, 45, 3), dtype=np.uint8)
    info = ModelInfo(names, (1, 2, 3), Preprocessing(size=200, max_size=300))
    Detector.from_model(small_model("detr"), info).explain(image, threshold=0, top_k=9).page(tmp_path / "page.html")
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto((tmp_path / "page.html").as_uri())
    page.locator("#others summary").click()
    assert page.locator("#objects bdi").first.inner_text()
    shown = set(page.locator("#objects bdi").all_inner_texts()) | set(page.evaluate("data.classes"))
    assert names[0] in shown
    assert names[1] in shown
    assert names[2] in shown
    page.locator("[name=mode][value=why]").check()
    assert page.locator("#objects bdi > *, #detail img, #detail b, option > *, figcaption > *").count() == 0
    page.close()
    assert problems == []
