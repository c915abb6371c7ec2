"""The page in a browser: what a person does, without an error and without another network."""

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import deformable_detr
from deformable_detr import Detector
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo
from helpers.browsing import chromium, needs_chromium, opened
from helpers.models import small_model
from helpers.serving import Serving, serving

PICTURES = Path(deformable_detr.__file__).parent / "assets" / "pictures"
PENGUIN = PICTURES / "penguin.jpg"
ALL = sorted(PICTURES.glob("*.jpg"))
SCRIPTS = sorted((Path(deformable_detr.__file__).parent / "server" / "page").glob("*.js"))
WIDE, NARROW = (1440, 1000), (390, 844)
on_both = pytest.mark.parametrize("page", [WIDE, NARROW], ids=["wide", "narrow"], indirect=True)
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def demo() -> Detector:
    return Detector("demo", device="cpu")


@pytest.fixture(scope="module")
def server(demo: Detector) -> Iterator[Serving]:
    with serving(demo) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, server: Serving, request: pytest.FixtureRequest) -> Iterator[Any]:
    with opened(browser, server.address, *getattr(request, "param", WIDE)) as page:
        yield page


def choose(page: Any, *files: Path) -> None:
    """Choose pictures, and wait for what is found in them."""
    page.locator("#files").set_input_files(list(map(str, files)))
    done = f"Looked at {len(files)} of {len(files)}" if len(files) > 1 else f"{files[0].name}: "
    page.locator("#status", has_text=done).wait_for()


def download(page: Any, kind: str) -> bytes:
    with page.expect_download() as coming:
        page.locator(f"[data-export={kind}]").click()
    return Path(coming.value.path()).read_bytes()


@on_both
def test_a_slider_and_switches_without_a_request(page: Any, demo: Detector) -> None:
    choose(page, PENGUIN)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for threshold in ("0.3", "0.6", "0"):
        page.locator("#threshold").fill(threshold)
        count = len(demo(PENGUIN, float(threshold)))
        assert page.locator("#found button").count() == count
        assert page.locator("#boxes [data-box]").count() == count
    page.locator("#threshold").fill("0.5")
    assert page.locator("#boxes").get_attribute("aria-label") == "2 penguin"
    page.locator("#classes label", has_text="penguin").click()
    assert page.locator("#found button").count() == 0
    assert page.locator("#caption").inner_text() == "penguin.jpg: nothing found"
    page.locator("#classes label", has_text="penguin").click()
    assert page.locator("#found button").count() == 2
    assert asked == []


def test_boxes_are_where_they_were_found(page: Any, demo: Detector) -> None:
    choose(page, PENGUIN)
    best = demo(PENGUIN)[0]
    shown = page.locator("#shown").bounding_box()
    drawn = page.locator("#boxes [data-box='0']").evaluate(
        "box => { const { x, y, width, height } = box.getBBox(); return [x, y, x + width, y + height]; }")
    assert drawn == pytest.approx(best.box.tolist(), abs=0.01)
    on_screen = page.locator("#boxes [data-box='0']").bounding_box()
    scale = shown["width"] / 384
    assert on_screen["x"] + on_screen["width"] / 2 - shown["x"] == pytest.approx(
        scale * (drawn[0] + drawn[2]) / 2, abs=1)


def test_dropped_and_pasted(page: Any) -> None:
    content = base64.b64encode(PENGUIN.read_bytes()).decode()
    transfer = page.evaluate_handle("""content => {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
        return transfer;
    }""", content)
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    page.locator("#status", has_text="dropped.jpg: 2 penguin").wait_for()
    page.evaluate("""transfer => document.dispatchEvent(
        new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }))""", transfer)
    page.locator("#status", has_text="Looked at 2 of 2 pictures.").wait_for()
    page.locator("#clear").click()
    assert not page.locator("#work").is_visible()


def test_the_camera(page: Any) -> None:
    page.locator("#camera").click()
    page.locator("#video").evaluate(
        "video => video.videoWidth || new Promise((done) => video.addEventListener('loadeddata', done))")
    page.locator("#shoot").click()
    page.locator("#caption", has_text="camera.jpg: ").wait_for()
    page.locator("#status", has_text="camera.jpg: ").wait_for()
    assert not page.locator("#camera-view").is_visible()


@on_both
def test_a_gallery_with_keys(page: Any) -> None:
    choose(page, *ALL)
    caption = page.locator("#caption")
    assert caption.inner_text().startswith("jellyfish.jpg")
    page.locator("#thumbs button").nth(0).focus()
    page.keyboard.press("ArrowLeft")
    assert caption.inner_text().startswith("jellyfish.jpg")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert caption.inner_text().startswith("starfish.jpg")
    page.locator("#threshold").focus()
    page.keyboard.press("ArrowRight")        # the slider's own
    assert page.locator("#threshold-value").inner_text() == "0.51"
    assert caption.inner_text().startswith("starfish.jpg")
    page.locator("#previous").click()
    assert caption.inner_text().startswith("penguin.jpg")
    page.locator("#thumbs button").nth(3).click()
    assert caption.inner_text().startswith("stingray.jpg")
    assert page.locator("#next").is_disabled()
    assert page.locator("#thumbs [aria-current=true]").count() == 1


@on_both
def test_a_detection_is_explained(page: Any) -> None:
    choose(page, PENGUIN)
    page.locator("#found button").nth(1).focus()
    page.keyboard.press("Enter")
    inside = page.frame_locator("#explanation-page")
    inside.locator("#legend", has_text="Query 2 after layer 3: penguin 0.558").wait_for()
    assert inside.locator("h1").inner_text() == "penguin.jpg"
    inside.locator("#layer").fill("0")
    assert "after layer 1" in inside.locator("#legend").inner_text()
    page.locator("#explanation button").click()
    assert not page.locator("#explanation").is_visible()


def test_what_is_shown_is_saved(page: Any, demo: Detector, tmp_path: Path) -> None:
    choose(page, *ALL)
    page.locator("#threshold").fill("0.3")
    page.locator("#classes label", has_text="jellyfish").click()
    wanted = []
    for path in ALL:
        found = demo(path, 0.3)
        kept = found[[name != "jellyfish" for name in found.names]]
        wanted.append({"file": path.name, **kept.to_dict(demo.info.category_ids)})
    assert json.loads(download(page, "json")) == wanted
    coco = json.loads(download(page, "coco"))
    assert [each["file_name"] for each in coco["images"]] == [path.name for path in ALL]
    assert len(coco["annotations"]) == sum(len(each["detections"]) for each in wanted) > 3
    first = coco["annotations"][0]
    x0, y0, x1, y1 = wanted[first["image_id"] - 1]["detections"][0]["box"]
    assert first["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=0.011)
    assert {each["id"]: each["name"] for each in coco["categories"]} == dict(
        zip(demo.info.category_ids, demo.names, strict=True))
    with zipfile.ZipFile(io.BytesIO(download(page, "yolo"))) as archive:
        assert archive.testzip() is None
        lines = archive.read("labels/penguin.txt").decode().splitlines()
        assert archive.read("data.yaml").decode().startswith('names:\n  0: "fish"\n')
        assert archive.read("labels/jellyfish.txt") == b""
    label, x, y, width, height = map(float, lines[0].split())
    box = wanted[1]["detections"][0]["box"]
    assert label == 2
    assert [(x - width / 2) * 384, (y - height / 2) * 512] == pytest.approx(box[:2], abs=0.01)


def test_a_format_that_browsers_do_not_know(page: Any, tmp_path: Path) -> None:
    PIL.Image.open(PENGUIN).save(tmp_path / "penguin.tif")
    choose(page, tmp_path / "penguin.tif")
    assert page.locator("#caption").inner_text() == "penguin.tif: 2 penguin"
    width = page.locator("#shown").evaluate("""image => image.naturalWidth
        || new Promise((done) => image.addEventListener("load", () => done(image.naturalWidth)))""")
    assert width == 384


def test_a_file_that_is_no_picture(browser: Any, server: Serving, tmp_path: Path) -> None:
    page = browser.new_page()       # whose console reports the refusal
    page.goto(server.address)
    (tmp_path / "text.jpg").write_text("text")
    page.locator("#files").set_input_files(str(tmp_path / "text.jpg"))
    page.locator("#caption", has_text="text.jpg: not an image, or its format is not supported").wait_for()
    page.close()


@on_both
def test_nothing_serious_for_assistive_technology_and_room_for_a_finger(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    choose(page, *ALL)
    for prepare in ("() => {}", "() => document.getElementById('ask-token').showModal()"):
        page.evaluate(prepare)
        found = axe.Axe().run(page).response["violations"]
        serious = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found
                   if each["impact"] in ("serious", "critical")]
        assert serious == []
    page.evaluate("document.getElementById('ask-token').close()")
    small = page.evaluate("""[...document.querySelectorAll("button, .button, .chips label, input[type=range]")]
        .filter((each) => each.checkVisibility()).map((each) => [each.outerHTML, each.getBoundingClientRect()])
        .filter(([, area]) => area.width < 24 || area.height < 24).map(([text]) => text)""")    # WCAG 2.5.8
    assert small == []


def test_a_token_is_asked_for_once(browser: Any, demo: Detector) -> None:
    with serving(demo, token="correct-horse-battery") as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.address)
        page.locator("#files").set_input_files(str(PENGUIN))
        page.locator("#token").fill("correct-horse-battery")
        page.keyboard.press("Enter")
        page.locator("#status", has_text="penguin.jpg: 2 penguin").wait_for()
        page.locator("#found button").first.click()
        page.frame_locator("#explanation-page").locator("#legend", has_text="penguin").wait_for()
        context.close()


def test_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    names = ("<img src=x onerror=alert(1)>", "\"'&amp;</script><b>", "${eel}")
    image = np.random.default_rng(0).integers(0, 256, (61, 45, 3), dtype=np.uint8)
    info = ModelInfo(names, (1, 2, 3), Preprocessing(size=64, max_size=96))
    file = tmp_path / "<b onclick=alert(1)>.png"
    PIL.Image.fromarray(image).save(file)
    with (serving(Detector.from_model(small_model("detr"), info)) as server,
          opened(browser, server.address, 800, 600) as page):
        page.locator("#files").set_input_files(str(file))
        page.locator("#caption", has_text=file.name).wait_for()
        page.locator("#status", has_text=f"{file.name}: ").wait_for()
        page.locator("#threshold").fill("0")
        shown = set(page.locator("#found bdi").all_inner_texts())
        assert shown
        assert shown <= set(names)
        assert page.locator("bdi > *, figcaption > *, #classes-known > *").count() == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_begins_with_what_it_is(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert text.startswith("// ")
    assert not [line for line in text.splitlines() if len(line) > 120 or line != line.rstrip() or "innerHTML" in line]
