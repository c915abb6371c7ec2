"""The review of a data set: its numbers are the report's, and the page shows them."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from deformable_detr import Detections, Detector
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.report.errors import count_errors, judge
from deformable_detr.report.thresholds import image_counts
from helpers.browsing import chromium, needs_chromium, opened
from helpers.serving import Serving, serving

BLOOD_CELLS = Path(__file__).parents[1] / "fixtures" / "bccd"
SIZES = [(1440, 1000), (390, 844)]


@pytest.fixture(scope="module")
def evaluator() -> CocoEvaluator:
    """Detections that are the truth, moved, mistaken or twice, some of them."""
    random = np.random.default_rng(0)
    truth = DetectionDataset(BLOOD_CELLS, "val").annotations
    evaluator = CocoEvaluator(truth, truth.names)
    for index, image in enumerate(truth.images):
        rows = random.permutation(np.flatnonzero(truth.image_index == index))
        rows = np.concatenate([rows[len(rows) // 4:], rows[:len(rows) // 2]])
        corners = truth.boxes[rows] + np.pad(truth.boxes[rows, :2], ((0, 0), (2, 0)))
        moved = corners + random.normal(0, 12, (len(rows), 1))
        labels = np.where(random.random(len(rows)) < 0.2, 0, truth.labels[rows])
        evaluator.add(image.id, Detections(
            moved.astype(np.float32), np.sort(random.random(len(rows)).astype(np.float32))[::-1].copy(), labels,
            [truth.names[label] for label in labels], image.size))
    return evaluator


@pytest.fixture(scope="module")
def server(detector: Detector, evaluator: CocoEvaluator) -> Iterator[Serving]:
    with serving(detector, evaluator=evaluator) as server:
        yield server


def test_its_numbers_are_those_of_the_report(server: Serving, evaluator: CocoEvaluator) -> None:
    data = server.ask("/review/data.json").json()
    kinds = {each["kind"] for image in data["images"] for each in image["found"]}
    assert kinds >= {"right", "localisation", "duplicate"}
    truth, outcomes = evaluator.annotations, judge(evaluator)
    assert [each["file"] for each in data["images"]] == [image.file_name for image in truth.images]
    assert data["names"] == list(truth.names)
    assert set(data["kinds"]) == {each.name for each in count_errors(outcomes)}
    counts = image_counts(outcomes, truth.image_index, len(truth.images), data["leastScore"])
    for image, (right, wrong, missed) in zip(data["images"], counts.tolist(), strict=True):
        kinds = [each["kind"] for each in image["found"]]
        assert kinds.count("right") == right
        assert len(kinds) - kinds.count("right") - kinds.count("ignored") == wrong
        hit = {each["target"] for each in image["found"] if each["kind"] == "right"}
        assert len([each for each in image["truth"] if not each["crowd"]]) - len(hit) == missed
    first = data["images"][0]["truth"][0]
    row = int(np.flatnonzero(truth.image_index == 0)[0])
    x, y, width, height = truth.boxes[row].tolist()
    assert first == {"label": int(truth.labels[row]), "box": [x, y, x + width, y + height],
                     "area": round(float(truth.areas[row]), 1), "crowd": False}


def test_its_images(server: Serving, evaluator: CocoEvaluator) -> None:
    answer = server.ask("/review/images/1")
    record = evaluator.annotations.images[1]
    assert answer.headers["content-type"] == "image/jpeg"
    assert PIL.Image.open(io.BytesIO(answer.content)).size == (record.width, record.height)
    for path in ("/review/images/999999", "/review/images/-1", "/review/images/..%2f..%2fval.json",
                 "/review/images/" + "9" * 30):
        assert server.ask(path).status == 404


def test_it_needs_the_token_and_a_data_set(detector: Detector, evaluator: CocoEvaluator) -> None:
    with serving(detector, token="correct-horse-battery", evaluator=evaluator) as server:
        assert server.ask("/review").status == 200
        assert server.ask("/review/data.json").status == 401
        assert server.ask("/review/images/0").status == 401
    with serving(detector) as server:
        assert server.ask("/review").status == 404
        assert b"/review" not in server.ask("/").content


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def captions_outside(page: Any) -> int:
    return page.evaluate("""() => [...document.querySelectorAll('.pair svg')].flatMap(svg => {
      const frame = svg.viewBox.baseVal;
      return [...svg.querySelectorAll('text')].filter(text => {
        const box = text.getBBox();
        return box.x < -1 || box.x + box.width > frame.width + 1;
      });
    }).length""")


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "review"])
def test_light_and_dark_have_all_their_colours(browser: Any, server: Serving, path: str, scheme: str) -> None:
    assert server.ask(f"/page/{path or 'page'}.css").content.decode().startswith(":root")
    page = browser.new_page(color_scheme=scheme)
    page.goto(f"{server.address}/{path}")
    names = ["--ground", "--card", "--ink", "--soft", "--rule", "--line0"]
    colours = page.evaluate("""names => names.map(name =>
      getComputedStyle(document.documentElement).getPropertyValue(name))""", names)
    page.close()
    assert all(colours)


@needs_chromium
@pytest.mark.parametrize("size", SIZES, ids=["wide", "narrow"])
def test_the_page_filters_and_turns(browser: Any, server: Serving, size: tuple[int, int]) -> None:
    data = server.ask("/review/data.json").json()
    number = len(data["images"])
    with opened(browser, server.address, *size) as page:
        page.get_by_text("Truth beside detections").click()
        status = page.locator("#status", has_text=f"{number} of {number} images")
        status.wait_for()
        page.locator("#threshold").fill("0.05")
        rows = page.locator("#ranking button")
        assert rows.count() == number
        f1 = [2 * right / max(1, 2 * right + wrong + missed) for right, wrong, missed in (
            map(int, text.split(" · ")) for text in page.locator("#ranking span").all_inner_texts())]
        assert f1 == sorted(f1)
        first = page.locator("#file").inner_text()
        page.locator("#truth image[href^='blob:']").wait_for(state="attached")
        assert captions_outside(page) == 0
        page.locator("#next").click()
        second = page.locator("#file").inner_text()
        assert second != first
        page.keyboard.press("ArrowLeft")
        assert page.locator("#file").inner_text() == first
        entry = next(each for each in data["images"] if each["file"] == first)
        assert page.locator("#truth rect:not(.under)").count() == len(entry["truth"])
        page.locator("#class").select_option(label="WBC")
        wbc = data["names"].index("WBC")
        having = [each for each in data["images"] if any(
            item["label"] == wbc for item in each["truth"] + each["found"])]
        assert rows.count() == len(having)
        page.locator("#class").select_option("")
        kind = next(item["kind"] for each in data["images"] for item in each["found"] if item["kind"] in data["kinds"])
        page.locator("#kind").select_option(kind)
        assert page.locator("#meaning").inner_text() == data["kinds"][kind]
        having = [each for each in data["images"] if any(item["kind"] == kind for item in each["found"])]
        assert rows.count() == len(having) > 0
        page.locator("#kind").select_option("")
        page.locator("#size").select_option("small")
        assert page.locator("#truth rect.faint").count() > 0 or rows.count() < number
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
        found = axe.Axe().run(page).response["violations"]
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
