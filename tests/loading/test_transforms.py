"""What augmentation does to sizes, boxes and colours."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.loading.augmentation import train_transform
from deformable_detr.loading.transforms import RandomCloseUp, eval_transform
from deformable_detr.preprocessing import Preprocessing, prepare_image

PLAIN_COLOURS = {"mean": (0.0, 0.0, 0.0), "deviation": (1.0, 1.0, 1.0)}
NO_BOXES = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def marked_image(height: int, width: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """A black image with a red box, of class 4, and a blue one, of class 2, and where they are."""
    image = np.zeros((height, width, 3), np.uint8)
    boxes = torch.tensor([[0.1, 0.2, 0.35, 0.6], [0.6, 0.5, 0.9, 0.9]]) * torch.tensor([width, height] * 2)
    boxes = boxes.round()
    for (left, top, right, bottom), colour in zip(boxes.int().tolist(), (0, 2), strict=True):
        image[top:bottom, left:right, colour] = 255
    return image, boxes, torch.tensor([4, 2])


def seeded(transform, seed: int, *arguments, **keywords):
    torch.manual_seed(seed)
    return transform(*arguments, **keywords)


def test_evaluation_resizes_and_normalises() -> None:
    preprocessing = Preprocessing(size=60, max_size=100)
    image, boxes, labels = marked_image(90, 120)
    prepared, target = eval_transform(preprocessing)(image, boxes, labels, 5)
    assert prepared.shape == (3, *preprocessing.resized((90, 120))) == (3, 60, 80)
    assert prepared.dtype == torch.float32
    mean, deviation = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.deviation)
    torch.testing.assert_close(prepared[:, 0, 0], -mean / deviation)
    torch.testing.assert_close(prepared[:, 24, 20], (torch.tensor([1.0, 0, 0]) - mean) / deviation)
    torch.testing.assert_close(cxcywh_to_xyxy(target.boxes) * torch.tensor([120, 90, 120, 90]), boxes)
    assert target.labels.tolist() == [4, 2]
    assert target.image_id == 5
    torch.testing.assert_close(prepare_image(image, preprocessing), prepared)


@pytest.mark.parametrize("name", ["published", "small", "strong"])
@pytest.mark.parametrize("side", [0.05, 0.4, 1.0])
def test_an_object_is_dropped_only_where_a_crop_has_cut_it_off(name: str, side: float) -> None:
    """In the middle of an image that is never cut there: resized, it is far below a pixel."""
    image = np.zeros((400, 400, 3), np.uint8)
    boxes = torch.tensor([[0.0, 0, 400, 400], [200, 200, 200 + side, 200 + side]])
    kept = []
    for seed in range(20):
        transform = train_transform(name, Preprocessing(size=64, max_size=107))
        target = seeded(transform, seed, image, boxes, torch.tensor([0, 1]))[1]
        assert (target.boxes[:, 2:] > 0).all()
        kept.append(1 in target.labels.tolist())
    assert sum(kept) > 10


def test_published_sizes() -> None:
    image, boxes, labels = marked_image(480, 640)
    transform = train_transform("published", Preprocessing())
    sizes = [tuple(seeded(transform, seed, image, boxes, labels)[0].shape[1:]) for seed in range(30)]
    uncropped = [size for size in sizes if size == (size[0], size[0] * 4 // 3)]
    assert 8 < len(uncropped) < 22
    assert len(set(uncropped)) > 4
    assert all(min(size) in range(480, 801, 32) or max(size) in (1332, 1333) for size in sizes)
    assert all(max(size) <= 1333 for size in sizes)


def test_published_sizes_scale_with_the_model() -> None:
    image, boxes, labels = marked_image(480, 640)
    transform = train_transform("published", Preprocessing(size=400, max_size=667))
    for seed in range(10):
        prepared, _ = seeded(transform, seed, image, boxes, labels)
        assert min(prepared.shape[1:]) in range(240, 401, 16)


@pytest.mark.parametrize("name", ["published", "small"])
@pytest.mark.parametrize("canvas", [None, (96, 128)])
def test_boxes_stay_on_their_objects(name: str, canvas: tuple[int, int] | None) -> None:
    image, boxes, labels = marked_image(96, 128)
    transform = train_transform(name, Preprocessing(size=96, max_size=160, **PLAIN_COLOURS))
    flipped = 0
    for seed in range(25):
        prepared, target = seeded(transform, seed, image, boxes, labels, canvas=canvas)
        assert prepared.isfinite().all()
        assert (target.boxes >= 0).all()
        assert (target.boxes <= 1).all()
        scale = torch.tensor([prepared.shape[2], prepared.shape[1]] * 2)
        for label, box in zip(target.labels.tolist(), cxcywh_to_xyxy(target.boxes) * scale, strict=True):
            left, top, right, bottom = (box + torch.tensor([2, 2, -2, -2])).round().int().tolist()
            inside = prepared[:, top:bottom, left:right]
            if inside.numel():
                red, _, blue = inside
                assert (red - blue).min() > 0.3 if label == 4 else (blue - red).min() > 0.3
        if set(target.labels.tolist()) == {4, 2}:
            flipped += bool(target.boxes[target.labels == 4, 0] > target.boxes[target.labels == 2, 0])
    assert 4 < flipped < 21


def test_small_zooms_in_and_out_and_changes_colours() -> None:
    image, boxes, labels = marked_image(96, 128)
    transform = train_transform("small", Preprocessing(size=96, max_size=160, **PLAIN_COLOURS))
    widths, whites = set(), set()
    for seed in range(20):
        prepared, target = seeded(transform, seed, image, boxes, labels, canvas=(96, 128))
        widths.update(round(width, 2) for width in target.boxes[target.labels == 4, 2].tolist())
        whites.add(round(float(prepared.max()), 2))
    assert min(widths) < 0.22 < 0.28 < max(widths)
    assert len(whites) > 5


def test_strong_goes_farther_than_small() -> None:
    image, _, _ = marked_image(96, 128)
    middle = torch.tensor([[60.0, 44, 68, 52]]), torch.tensor([2])   # seldom cut
    spans = {}
    for name in ("small", "strong"):
        transform = train_transform(name, Preprocessing(size=96, max_size=160, **PLAIN_COLOURS))
        heights = [height for seed in range(60) for height in
                   seeded(transform, seed, image, *middle, canvas=(96, 128))[1].boxes[:, 3].tolist()]
        spans[name] = np.quantile(heights, [0.05, 0.95])
    assert spans["strong"][0] < spans["small"][0] - 0.005
    assert spans["strong"][1] > spans["small"][1] + 0.02


def test_a_close_up_forgets_what_is_hardly_left() -> None:
    _, boxes, labels = marked_image(96, 128)
    framed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(96, 128))
    sample = {"image": tv_tensors.Image(torch.zeros(3, 96, 128, dtype=torch.uint8)), "boxes": framed, "labels": labels}
    left = [0, 0, 0]
    for seed in range(40):
        torch.manual_seed(seed)
        found = v2.SanitizeBoundingBoxes()(RandomCloseUp(0.3, 0.6)(sample))
        left[len(found["boxes"])] += 1
        for box, label in zip(found["boxes"], found["labels"], strict=True):
            whole = boxes[labels.tolist().index(int(label))]
            assert (box[2:] - box[:2]).prod() > 0.3 * (whole[2:] - whole[:2]).prod()
    assert min(left[:2]) > 5


@pytest.mark.parametrize("name", ["published", "small", "strong"])
def test_randomness_is_torchs_alone(name: str) -> None:
    image, boxes, labels = marked_image(60, 90)
    transform = train_transform(name, Preprocessing(size=64, max_size=100))
    np.random.seed(0)  # noqa: NPY002
    first, first_target = seeded(transform, 3, image, boxes, labels)
    np.random.seed(1)  # noqa: NPY002
    again, again_target = seeded(transform, 3, image, boxes, labels)
    assert torch.equal(first, again)
    assert torch.equal(first_target.boxes, again_target.boxes)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 400), seed=st.integers(0, 99),
       name=st.sampled_from(["published", "small", "strong"]))
def test_any_size_without_objects(height: int, width: int, seed: int, name: str) -> None:
    preprocessing = Preprocessing(size=48, max_size=80)
    transform = train_transform(name, preprocessing)
    canvas = next(iter(transform.canvases((height, width))), None)
    image, target = seeded(transform, seed, np.zeros((height, width, 3), np.uint8), *NO_BOXES, canvas=canvas)
    assert target.boxes.shape == (0, 4)
    largest = 2 * preprocessing.max_size     # the short side is rounded, as published, and may be a pixel
    assert all(1 <= side <= most for side, most in zip(image.shape[1:], canvas or (largest, largest), strict=True))


def test_a_long_thin_image_does_not_fill_the_memory() -> None:
    for seed in range(4):
        image, _ = seeded(train_transform("published", Preprocessing()), seed,
                          np.zeros((1, 4000, 3), np.uint8), *NO_BOXES)
        assert max(image.shape) <= 2 * 1333


def test_canvases_are_few_and_divisible() -> None:
    transform = train_transform("small", Preprocessing(size=352, max_size=480, divisor=48))
    landscape, portrait, square = (transform.canvases(size) for size in ((480, 640), (640, 427), (500, 500)))
    assert landscape == tuple((height, width) for width, height in portrait)
    assert len(landscape) == 3
    assert all(side % 96 == 0 for canvas in (*landscape, *square) for side in canvas)
    assert all(height == width for height, width in square)
    assert train_transform("published", Preprocessing()).canvases((480, 640)) == ()


def test_largest_canvas_holds_what_evaluation_shows() -> None:
    preprocessing = Preprocessing(size=352, max_size=480)
    height, width = preprocessing.resized((480, 640))
    canvas = train_transform("small", preprocessing).canvases((480, 640))[-1]
    assert canvas == (352, 480)
    assert height <= canvas[0] and width <= canvas[1]  # noqa: PT018


def test_unknown_augmentation() -> None:
    with pytest.raises(ValueError, match="augmentation: expected 'published', 'small' or 'strong', got 'huge'"):
        train_transform("huge", Preprocessing())
