"""The tensor structures, detections and preprocessing."""

import base64
import io
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from deformable_detr import Detections, ImageBatch
from deformable_detr.detections import best_detections
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import Features, Predictions, Proposals, Pyramid, to_device


def test_batch_is_padded_right_and_bottom() -> None:
    batch = ImageBatch.from_images([torch.ones(3, 5, 9), torch.ones(3, 7, 4)], size_divisor=4)
    assert batch.images.shape == (2, 3, 8, 12)
    assert batch.sizes == ((5, 9), (7, 4))
    for image, padding, (height, width) in zip(batch.images, batch.padding, batch.sizes, strict=True):
        assert not padding[:height, :width].any()
        assert int((~padding).sum()) == height * width
        assert (image[:, padding] == 0).all()
        assert (image[:, ~padding] == 1).all()


@pytest.mark.parametrize("images", [[], [torch.ones(3, 0, 4)], [torch.ones(1, 4, 4)], [torch.ones(4, 4)],
                                    [torch.ones(3, 4, 4, dtype=torch.uint8)]])
def test_batch_refuses_what_is_no_image(images: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="images"):
        ImageBatch.from_images(images)


def test_structures_are_trees_of_tensors() -> None:
    batch = ImageBatch.from_images([torch.ones(3, 5, 9)])
    leaves, spec = tree_flatten(batch)
    assert any(leaf is batch.images for leaf in leaves)
    assert tree_unflatten(leaves, spec).sizes == batch.sizes
    moved = to_device([batch, batch], "meta")
    assert moved[1].padding.device.type == "meta"


def test_pyramid_knows_where_levels_start() -> None:
    pyramid = Pyramid(torch.zeros(1, 29, 4), torch.zeros(1, 29, 4), torch.zeros(1, 29, dtype=torch.bool),
                      torch.ones(1, 3, 2), ((5, 4), (2, 3), (1, 3)))
    assert pyramid.level_starts == (0, 20, 26)


@pytest.fixture
def predictions() -> Predictions:
    logits = torch.full((2, 2, 3, 4), -10.0)
    logits[1, 0, 2, 1] = 3
    logits[1, 0, 2, 3] = 2
    logits[1, 1, 0, 0] = 1
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.4]).expand(2, 2, 3, 4)
    return Predictions(logits, boxes, Proposals(torch.zeros(2, 5, 4), torch.zeros(2, 5, 4)))


def test_detections_are_the_best_scores_in_pixels(predictions: Predictions) -> None:
    first, second = predictions.detections([(100, 200), (50, 40)], top_k=2, names=list("abcd"))
    assert first.names == ["b", "d"]   # one box under two classes
    assert first.labels.tolist() == [1, 3]
    np.testing.assert_allclose(first.scores, torch.tensor([3.0, 2.0]).sigmoid())
    np.testing.assert_allclose(first.boxes[0], [80, 30, 120, 70], rtol=1e-5)
    assert second.image_size == (50, 40)
    assert first.boxes.dtype == first.scores.dtype == np.float32
    assert first.labels.dtype == np.int64


def test_no_more_detections_than_queries_and_classes(predictions: Predictions) -> None:
    assert len(predictions.detections([(9, 9), (9, 9)], top_k=1000)[0]) == 3 * 4


def test_detections_refuse_the_wrong_number(predictions: Predictions) -> None:
    with pytest.raises(ValueError, match="image_sizes: expected 2"):
        predictions.detections([(9, 9)])
    with pytest.raises(ValueError, match="names: expected 4"):
        predictions.detections([(9, 9), (9, 9)], names=["a"])


def test_one_image_of_a_batch(predictions: Predictions) -> None:
    one = predictions.image(1)
    assert one.proposals is not None
    assert one.logits.shape == (2, 1, 3, 4)
    assert one.detections([(50, 40)])[0].scores[0] == predictions.detections([(9, 9), (50, 40)])[1].scores[0]


@pytest.fixture
def detections(predictions: Predictions) -> Detections:
    return predictions.detections([(100, 200), (50, 40)], top_k=2, names=list("abcd"))[0]


def test_plain_numbers_for_json(detections: Detections) -> None:
    as_dict = detections.to_dict(category_ids=[1, 18, 44, 90])
    assert (as_dict["width"], as_dict["height"]) == (200, 100)
    found = {"label": 3, "name": "d", "score": 0.8808, "box": [80.0, 30.0, 120.0, 70.0]}
    assert as_dict["detections"][1] == {**found, "category_id": 90}
    assert detections.to_dict()["detections"][1] == found


def test_detections_are_a_sequence(detections: Detections) -> None:
    first, second = detections
    assert (first.name, first.label, first.score) == ("b", 1, pytest.approx(0.9526, abs=1e-4))
    np.testing.assert_array_equal(second.box, detections.boxes[1])
    for index in (1, -1, np.int64(1), torch.tensor(1)):
        assert detections[index].label == 3
    with pytest.raises(IndexError):
        detections[2]
    with pytest.raises(TypeError):
        detections[0.5]
    for several in ([1, 0], np.array([1, 0]), slice(None, None, -1), torch.tensor([1, 0])):
        assert detections[several].names == ["d", "b"]
        assert detections[several].image_size == (100, 200)
    for one in ([False, True], detections.labels == 3, slice(1, 9), torch.tensor([False, True])):
        assert detections[one].labels.tolist() == [3]
    for none in ([], slice(0), detections.scores > 1, np.zeros(0, np.int64)):
        assert len(detections[none]) == 0
        assert detections[none].boxes.shape == (0, 4)
    assert list(detections[:0]) == []


def test_detections_are_shown_as_a_table(detections: Detections) -> None:
    assert repr(detections).splitlines() == [
        "Detections: 2 in 200 x 100 pixels",
        "   score  name        x0       y0       x1       y1",
        "   0.953  b         80.0     30.0    120.0     70.0",
        "   0.881  d         80.0     30.0    120.0     70.0"]
    assert repr(detections[:0]) == "Detections: 0 in 200 x 100 pixels"
    many = detections[[0] * 13]
    assert repr(many).splitlines()[-1].strip() == "... and 3 more"
    evil = Detections(many.boxes, many.scores, many.labels, ["\x1b[2J\n"] * 13, many.image_size)
    assert "\x1b" not in repr(evil)
    assert len(repr(evil).splitlines()) == 13


def picture_of(page: str) -> PIL.Image.Image:
    """The picture that a notebook is given."""
    found = re.fullmatch(r'<img src="data:image/jpeg;base64,([^"]+)" alt=""><pre>[^<]*</pre>', page)
    assert found, page[:100]
    return PIL.Image.open(io.BytesIO(base64.b64decode(found[1])))


def test_detections_show_their_picture_in_a_notebook(detections: Detections, tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    PIL.Image.new("RGB", (1600, 800), "grey").save(path)
    shown = replace(detections, source=path)
    picture = picture_of(shown._repr_html_())
    assert picture.size == (720, 360)
    assert np.ptp(np.asarray(picture)) > 100, "boxes are drawn"
    assert picture_of(shown[:1]._repr_html_()).size == (720, 360), "a part has the same picture"
    path.unlink()
    assert shown._repr_html_() == f"<pre>{detections!r}</pre>" == detections._repr_html_()
    hostile = replace(detections, names=["</pre><script>alert(1)</script>", "&amp;"])
    assert "<script" not in hostile._repr_html_()
    assert "&lt;script&gt;" in hostile._repr_html_()


def test_structures_are_shown_by_shapes_and_ranges() -> None:
    batch = ImageBatch.from_images([torch.linspace(-1, 2, 60).reshape(3, 4, 5), torch.zeros(3, 2, 5)])
    assert repr(batch).splitlines() == [
        "ImageBatch(", "    images=float32 (2, 3, 4, 5) -1..2,", "    padding=bool (2, 4, 5) 25.0% True,",
        "    sizes=((4, 5), (2, 5)),", ")"]
    nested = Predictions(torch.full((1, 2, 3, 4), torch.nan), torch.zeros(1, 2, 3, 4).bfloat16(),
                         Proposals(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4, device="meta")))
    assert repr(nested).splitlines() == [
        "Predictions(", "    logits=float32 (1, 2, 3, 4) nan..nan,", "    boxes=bfloat16 (1, 2, 3, 4) 0..0,",
        "    proposals=Proposals(", "        logits=float32 (2, 0, 4),", "        boxes=float32 (2, 0, 4) meta,",
        "        chosen=None,", "    ),", "    extra=None,", "    no_object=False,", ")"]
    features = Features((torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 1)), torch.zeros(1, 9, 9, dtype=torch.bool))
    assert "maps=(float32 (1, 1, 2, 2) 0..0, float32 (1, 1, 1, 1) 1..1)" in repr(features)
    with FakeTensorMode():
        assert "images=float32 (1, 3, 2, 2)," in repr(ImageBatch.from_images([torch.zeros(3, 2, 2)]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("part", ["logits", "boxes"])
@pytest.mark.parametrize("nms_threshold", [1.0, 0.5])
def test_predictions_that_are_not_finite_are_no_detections(predictions: Predictions, part: str, value: float,
                                                           nms_threshold: float) -> None:
    broken = replace(predictions, **{part: getattr(predictions, part).clone()})
    assert broken.are_finite()
    getattr(broken, part)[-1, 1, 2, 3] = value
    assert not broken.are_finite()
    with pytest.raises(ValueError, match="predictions: expected finite scores and boxes"):
        broken.detections([(9, 9), (9, 9)], nms_threshold=nms_threshold)
    first = replace(predictions, **{part: getattr(predictions, part).clone()})
    getattr(first, part)[0, 1, 2, 3] = value    # not the result
    assert first.are_finite()


def test_scores_that_are_not_finite_are_no_detections() -> None:
    scores, boxes = torch.full((1, 50, 3), 0.5), torch.rand(1, 50, 4)
    scores[0, 49, 2] = torch.nan
    with pytest.raises(ValueError, match="predictions: expected finite"):
        best_detections(scores, boxes, [(9, 9)], top_k=2)
    with pytest.raises(ValueError, match="predictions: expected finite"):
        best_detections(torch.full((1, 50, 3), 0.5), torch.full((1, 50, 4), torch.inf), [(9, 9)], top_k=2)


def test_threshold_keeps_what_reaches_it(detections: Detections) -> None:
    assert detections.above(0.9).names == ["b"]
    assert len(detections.above(0.99)) == 0


def test_suppression_keeps_the_better_of_two_boxes_of_a_class() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    scores, labels = np.array([.6, .9, .8, .5, .1], np.float32), np.array([0, 0, 0, 1, 0])
    found = Detections(boxes, scores, labels, ["a", "a", "a", "b", "a"], (100, 100))
    kept = found.suppressed(0.85)          # IoU with the best: 0.9 of the first, 0.89 of the third
    assert kept.scores.tolist() == scores[[1, 3, 4]].tolist()
    assert kept.names == ["a", "b", "a"]
    np.testing.assert_array_equal(kept.boxes, boxes[[1, 3, 4]])
    assert len(found.suppressed(0.95)) == 5
    assert len(found.above(1).suppressed(0.5)) == 0


def test_predictions_are_suppressed_where_asked(predictions: Predictions) -> None:
    sizes = [(100, 200), (50, 40)]
    assert len(predictions.detections(sizes)[0]) == 12           # 3 queries at one place, 4 classes
    kept = predictions.detections(sizes, nms_threshold=0.7)[0]
    assert sorted(kept.labels.tolist()) == [0, 1, 2, 3]
    assert kept.scores[0] == predictions.detections(sizes)[0].scores[0]
    assert len(predictions.detections(sizes, top_k=4, nms_threshold=0.7)[0]) == 4   # chosen after the suppression


@pytest.mark.filterwarnings("ignore:OpenCV")
def test_supervision_takes_them(detections: Detections) -> None:
    import supervision

    taken = detections.to_supervision()
    assert isinstance(taken, supervision.Detections)
    assert taken.class_id is not None
    assert taken.class_id.tolist() == [1, 3]
    assert taken["class_name"].tolist() == ["b", "d"]


def published_size(image_size: tuple[int, int], size: int, max_size: int) -> tuple[int, int]:
    """The published rule: `get_size_with_aspect_ratio`, on width and height."""
    height, width = image_size
    shorter, longer = float(min(width, height)), float(max(width, height))
    if longer / shorter * size > max_size:
        size = round(max_size * shorter / longer)
    if (width <= height and width == size) or (height <= width and height == size):
        return height, width
    if width < height:
        return int(size * height / width), size
    return size, int(size * width / height)


@pytest.mark.parametrize(("size", "max_size"), [(800, 1333), (768, 1333), (480, 1333), (384, 640), (600, 600)])
def test_resizing_is_the_published_one(size: int, max_size: int) -> None:
    preprocessing = Preprocessing(size, max_size)
    sides = [1, 2, 3, 13, 60, 139, 140, 333, 480, 629, 640, 800, 1333, 1334, 4000]
    for image_size in itertools.product(sides, sides):
        if max(image_size) < 2 * max_size * min(image_size):    # else it gives no pixels
            assert preprocessing.resized(image_size) == published_size(image_size, size, max_size), image_size


@pytest.mark.parametrize(("image_size", "size", "resized"), [
    ((480, 640), 800, (800, 1066)), ((100, 100), 800, (800, 800)), ((480, 1920), 800, (333, 1332)),
    ((140, 629), 768, (297, 1334)), ((629, 140), 800, (1334, 297)), ((1, 1), 800, (800, 800)),
    ((1, 4000), 800, (1, 1333)), ((4000, 1), 800, (1333, 1)), ((1, 120_000_000), 800, (1, 1333))])
def test_resized_sizes(image_size: tuple[int, int], size: int, resized: tuple[int, int]) -> None:
    assert Preprocessing(size).resized(image_size) == resized


@pytest.mark.parametrize("changes", [
    {"size": 0}, {"size": 900, "max_size": 800}, {"divisor": 0}, {"deviation": (1.0, 0.0, 1.0)},
    {"deviation": (1.0, 1e-320, 1.0)}, {"mean": (0.0, 1e308, 0.0)}, {"mean": (math.nan, 0.0, 0.0)},
    {"deviation": (1.0, math.inf, 1.0)}])
def test_impossible_preprocessing(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="preprocessing"):
        Preprocessing(**changes)  # type: ignore[arg-type]
