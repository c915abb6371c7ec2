import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import deformable_detr
from deformable_detr import Detector
from deformable_detr.explain.arithmetic import bilinear_weights
from deformable_detr.explain.packing import pack, pack_rounded
from deformable_detr.explain.page_data import TITLES, page_data
from deformable_detr.papers.family import PAPERS
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo
from helpers.models import small_model

PICTURES = Path(deformable_detr.__file__).parent / "assets" / "pictures"
HOSTILE = "</script><img src=x onerror=alert(1)> \"'`\x07\x1b[31m\u202e\udc80"
NAMES = ("<b>cat</b>", "dog & \"eel\"", "猫")


def detector(preset: str, *, size: int = 90, **changes: object) -> Detector:
    preprocessing = Preprocessing(size=size, max_size=2 * size, divisor=64)
    return Detector.from_model(small_model(preset, **changes), ModelInfo(NAMES, (1, 2, 3), preprocessing))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    raw = np.frombuffer(base64.b64decode(packed["data"]), packed["dtype"]).reshape(packed["shape"])
    return raw * packed["scale"] + packed["offset"]


def test_packing_gives_the_numbers_back() -> None:
    numbers = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(unpacked(pack(numbers)), numbers)
    np.testing.assert_array_equal(unpacked(pack(np.array([[7, 300]]), "uint16")), [[7, 300]])
    for dtype, steps in (("uint8", 255), ("uint16", 65535)):
        np.testing.assert_allclose(unpacked(pack_rounded(numbers, dtype)), numbers, atol=0.51 * np.ptp(numbers) / steps)
    np.testing.assert_array_equal(unpacked(pack_rounded(np.full((2, 2), 0.25), "uint8")), np.full((2, 2), 0.25))
    assert unpacked(pack_rounded(np.zeros((0, 4)), "uint8")).shape == (0, 4)


@pytest.mark.parametrize("preset", ["multi-scale", "two-stage"])
def test_the_page_shows_what_the_explanation_has(preset: str) -> None:
    explanation = detector(preset).explain(noise(61, 45), threshold=0, top_k=4)
    assert explanation.locations is not None
    assert explanation.weights is not None
    data = json.loads(json.dumps(page_data(explanation), allow_nan=False))
    kept = data["queries"]["index"]
    assert kept[:1] == explanation.queries[:1].tolist()
    assert sorted(kept) == list(range(11))
    for layer, shown in enumerate(data["layers"]):
        for name in ("references", "boxes", "scores", "labels", "locations", "weights"):
            np.testing.assert_array_equal(unpacked(shown[name]), getattr(explanation, name)[layer][kept].float())
        heard = explanation.self_attention[layer][kept]
        queries = unpacked(shown["selfAttention"]["queries"]).astype(int)
        np.testing.assert_array_equal(unpacked(shown["selfAttention"]["weights"]),
                                      np.take_along_axis(heard.numpy(), queries, axis=1))
    tokens = unpacked(data["encoder"]["tokens"]).astype(int)
    for row in (0, len(tokens) // 2, len(tokens) - 1):
        reading = explanation.encoder(0, *map(int, tokens[row]))
        assert reading.locations is not None
        np.testing.assert_allclose(unpacked(data["encoder"]["layers"][0]["locations"])[row],
                                   reading.locations.clamp(-1, 2), atol=1e-4)
        np.testing.assert_allclose(unpacked(data["encoder"]["layers"][0]["weights"])[row], reading.weights, atol=1e-2)
    for (level, y, x) in tokens.tolist():
        height, width = explanation.valid_shapes[level]
        assert (y, x) < (height, width)
        assert x < width


def test_boxes_are_in_pixels_of_the_shown_image() -> None:
    explanation = detector("two-stage").explain(noise(300, 2000), threshold=0, top_k=3)
    data = page_data(explanation)
    image = PIL.Image.open(io.BytesIO(base64.b64decode(data["image"]["source"].partition(",")[2])))
    assert image.size == (data["image"]["width"], data["image"]["height"]) == (1000, 150)
    assert (data["image"]["originalWidth"], data["image"]["originalHeight"]) == (2000, 300)
    for shown, each in zip(data["detections"], explanation.detections, strict=True):
        np.testing.assert_allclose(shown["box"], each.box / 2, atol=0.01)


def test_the_arithmetic_adds_up() -> None:
    """Corners, bilinear weights and attention weights give what a head sums in one channel."""
    explanation = Detector("demo", device="cpu").explain(PICTURES / "penguin.jpg")
    assert explanation.locations is not None
    assert explanation.weights is not None
    shown = page_data(explanation)["arithmetic"]
    queries = shown["queries"]
    assert set(explanation.queries.tolist()) <= set(queries)
    extents = np.array(explanation.valid_shapes)[:, None, ::-1]
    for layer, data in enumerate(shown["layers"]):
        bilinear = bilinear_weights(explanation.locations[layer][queries].double().numpy() * extents - 0.5)
        samples = (bilinear * unpacked(data["corners"])).sum(-1)
        sums = (explanation.weights[layer][queries].numpy() * samples).sum((2, 3))
        np.testing.assert_allclose(sums, unpacked(data["outputs"]), atol=1e-5)
        maps = explanation.values(layer)
        query, head, level, point = 1, 3, 2, 0      # the first corner is the value at the cell
        x, y = np.floor(explanation.locations[layer][queries[query], head, level, point].numpy() * extents[level, 0]
                        - 0.5).astype(int)
        height, width = maps[level].shape[1:3]
        channel = int(unpacked(data["channels"])[query, head])
        value = float(maps[level][head, y, x, channel]) if 0 <= x < width and 0 <= y < height else 0
        assert unpacked(data["corners"])[query, head, level, point, 0] == value


@pytest.mark.parametrize("preset", ["detr", "dab-detr"])
def test_dense_attention_as_shares_of_its_peak(preset: str) -> None:
    explanation = detector(preset).explain(noise(61, 45), threshold=0, top_k=4)
    assert explanation.attention is not None
    data = page_data(explanation)
    kept = data["queries"]["index"]
    assert data["model"]["attention"] == "dense"
    height, width = explanation.valid_shapes[0]
    assert (height, width) < explanation.level_shapes[0]
    assert data["arithmetic"] == {"queries": [], "layers": []}
    for layer, shown in enumerate(data["layers"]):
        assert shown["locations"] is shown["weights"] is None
        maps = unpacked(shown["attention"]) * unpacked(shown["peaks"])[..., None, None]
        np.testing.assert_allclose(maps, explanation.attention[layer][kept][..., :height, :width], atol=1e-3)
    first = explanation.encoder(0, *map(int, unpacked(data["encoder"]["tokens"])[0]))
    assert first.attention is not None
    encoder = data["encoder"]["layers"][0]
    np.testing.assert_allclose(unpacked(encoder["attention"])[0, 0] * unpacked(encoder["peaks"])[0, 0],
                               first.attention.mean(0)[:height, :width], atol=1e-3)


def test_heads_are_averaged_where_their_maps_are_too_large() -> None:
    explanation = detector("detr", size=512, num_heads=8, num_decoder_layers=6).explain(noise(500, 900), threshold=0)
    large = detector("detr", size=1600, num_heads=8, num_decoder_layers=6).explain(noise(500, 900), threshold=0)
    assert unpacked(page_data(explanation)["layers"][0]["attention"]).shape[1] == 8
    maps = unpacked(page_data(large)["layers"][0]["attention"])
    assert maps.shape[1] == 1
    assert len(maps) < 60


FULL = {"num_heads": 8, "num_encoder_layers": 6, "num_decoder_layers": 6, "num_queries": 300}


@pytest.mark.parametrize("preset", ["two-stage", "dino-5scale", "detr", "single-scale-dc5"])
def test_the_data_of_a_large_picture_leave_room_for_the_page(preset: str) -> None:
    """3 MB for the page of a picture of 1000 pixels, of which 0.45 MB are for scripts and styles."""
    found = detector(preset, size=320, **FULL).explain(noise(750, 1000), threshold=0)
    assert len(json.dumps(page_data(found))) < 2_550_000


def test_more_detections_than_there_is_room_for() -> None:
    explanation = detector("multi-scale", num_queries=100).explain(noise(61, 45), threshold=0, top_k=200)
    data = page_data(explanation)
    assert len(data["detections"]) == 200
    assert data["queries"]["index"] == list(dict.fromkeys(explanation.queries.tolist()))[:60]


@pytest.mark.parametrize("preset", ["two-stage", "detr"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
def test_extreme_sizes_and_nothing_found(preset: str, shape: tuple[int, int]) -> None:
    data = page_data(detector(preset).explain(noise(*shape), threshold=1))
    assert data["detections"] == []
    assert len(data["queries"]["index"]) == 11
    json.dumps(data, allow_nan=False)


def test_points_that_are_nowhere_can_be_packed() -> None:
    explanation = detector("multi-scale").explain(noise(61, 45), threshold=0)
    attention: Any = explanation._encoder[0].attention
    with torch.no_grad():
        attention.sampling_offsets.bias[0] = torch.inf
        attention.sampling_offsets.bias[1] = torch.nan
    locations = unpacked(page_data(explanation)["encoder"]["layers"][0]["locations"])
    assert np.isfinite(locations).all()
    assert (np.abs(locations - 0.5) <= 1.51).all()


def test_names_without_control_characters() -> None:
    explanation = detector("multi-scale").explain(noise(61, 45), threshold=0)
    data = page_data(explanation.__class__(**{**vars(explanation), "name": HOSTILE}))
    assert data["image"]["name"].startswith("</script><img src=x onerror=alert(1)> \"'`\\x07\\x1b[31m\\u202e")
    assert data["classes"] == list(NAMES)
    assert {each["label"] for each in data["detections"]} <= set(NAMES)


def test_every_paper_has_a_title() -> None:
    assert set(TITLES) == set(PAPERS)
