import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from deformable_detr import Detector
from deformable_detr.explain import Explanation
from deformable_detr.explain.page import render_explanation
from deformable_detr.explain.page_data import page_data
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo
from helpers.models import small_model

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&amp;\"'`{{7*7}}\x07\u202e\udc80.jpg"
NAMES = ("</script><b>cat</b>", "dog & \"eel\" <!--", "猫\u2028")


class Elements(HTMLParser):
    """The start tags of a page, its title, and the text of its data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[str]]] = []
        self.texts: dict[str, str] = {}
        self.here = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))
        self.here = "explanation" if dict(attrs).get("id") == "explanation" else tag

    def handle_data(self, data: str) -> None:
        self.texts[self.here] = self.texts.get(self.here, "") + data


def explained(preset: str, name: str, names: tuple[str, ...]) -> Explanation:
    info = ModelInfo(("a", "b", "c"), (1, 2, 3), Preprocessing(size=90, max_size=150))
    image = np.random.default_rng(0).integers(0, 256, (61, 45, 3), dtype=np.uint8)
    found = Detector.from_model(small_model(preset), info).explain(image, threshold=0, top_k=5)
    detections = replace(found.detections, names=[names[label] for label in found.detections.labels])
    return replace(found, name=name, class_names=names, detections=detections)


@pytest.mark.parametrize("preset", ["two-stage", "detr"])
def test_hostile_names_are_text(preset: str) -> None:
    hostile = explained(preset, HOSTILE, NAMES)
    page = Elements(render_explanation(hostile).decode())
    harmless = Elements(render_explanation(explained(preset, "photo.jpg", ("cat", "dog", "eel"))).decode())
    assert page.tags == harmless.tags
    assert json.loads(page.texts["explanation"]) == page_data(hostile)
    assert harmless.texts["title"].strip().startswith("photo.jpg")
    assert "</script><script>alert(1)</script>" in page.texts["title"]


def test_a_page_is_one_file_that_asks_no_network(tmp_path: Path) -> None:
    explanation = explained("two-stage", "photo.jpg", ("cat", "dog", "eel"))
    explanation.page(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_bytes()
    assert page == render_explanation(explanation)
    assert b"Content-Security-Policy" in page
    assert b"default-src 'none'" in page
    assert not {"link", "iframe"} & {tag for tag, _ in Elements(page.decode()).tags}
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(FileExistsError):
        explanation.page(tmp_path / "folder.html")


def test_a_notebook_shows_the_page_in_a_frame_of_its_own() -> None:
    explanation = explained("two-stage", HOSTILE, NAMES)
    frames: list[dict[str, str | None]] = []

    class Frames(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            frames.append({"tag": tag, **dict(attrs)})

    Frames().feed(explanation._repr_html_())
    (frame,) = frames
    assert (frame["tag"], frame["sandbox"]) == ("iframe", "allow-scripts")
    assert frame["srcdoc"] == render_explanation(explanation).decode()


@pytest.mark.parametrize("preset", ["two-stage", "dino-5scale", "detr"])
def test_the_page_of_a_large_picture_is_small(preset: str) -> None:
    sizes = {"num_heads": 8, "num_encoder_layers": 6, "num_decoder_layers": 6, "num_queries": 300}
    info = ModelInfo(("a", "b", "c"), (1, 2, 3), Preprocessing(size=320, max_size=640))
    image = np.random.default_rng(0).integers(0, 256, (750, 1000, 3), dtype=np.uint8)
    found = Detector.from_model(small_model(preset, **sizes), info).explain(image, threshold=0)
    assert len(render_explanation(found)) <= 3_000_000
