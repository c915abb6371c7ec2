from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from deformable_detr.drawing import colour_of, draw_boxes
from deformable_detr.images import ImageError

GREY = np.full((200, 300, 3), 128, dtype=np.uint8)


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def drawn(rows: np.ndarray, caption: str = "", image: np.ndarray = GREY) -> np.ndarray:
    """Where drawing changed the image."""
    classes = np.zeros(len(rows), dtype=np.int64)
    result = draw_boxes(image, rows, [caption] * len(rows), classes)
    assert result.mode == "RGB"
    assert result.size == (image.shape[1], image.shape[0])
    return (np.asarray(result) != image).any(axis=2)


def test_a_box_is_outlined_in_the_colour_of_its_class() -> None:
    result = np.asarray(draw_boxes(GREY, boxes((50, 40, 150, 120)), [""], np.array([3])))
    for x, y in ((50, 40), (150, 120), (100, 40), (50, 80)):
        assert tuple(result[y, x]) == colour_of(3)
    assert (result[50:110, 60:140] == 128).all()
    assert (result[:35] == 128).all()
    assert (GREY == 128).all()


def test_the_first_box_is_on_top() -> None:
    result = draw_boxes(GREY, boxes((50, 50, 90, 90), (50, 50, 90, 90)), ["", ""], np.array([5, 6]))
    assert result.getpixel((50, 70)) == colour_of(5)


def test_line_and_letters_follow_the_size_of_the_image() -> None:
    small, large = GREY, np.full((2000, 3000, 3), 128, dtype=np.uint8)
    box = boxes((50, 40, 150, 120))
    assert drawn(box * 10, image=large).sum() > 20 * drawn(box, image=small).sum()
    tags = [drawn(row, "cat", image).sum() - drawn(row, "", image).sum()
            for image, row in ((small, box), (large, box * 10))]
    assert tags[1] > 20 * tags[0] > 0


@pytest.mark.parametrize("corner", [(0, 0), (280, 0), (0, 190), (280, 190)])
def test_captions_stay_inside_the_image(corner: tuple[int, int]) -> None:
    box = boxes((*corner, corner[0] + 20, corner[1] + 10))
    centre = boxes((140, 95, 160, 105))
    tag = drawn(box, "platelets").sum() - drawn(box).sum()
    assert tag == pytest.approx(drawn(centre, "platelets").sum() - drawn(centre).sum(), rel=0.35)


def test_captions_do_not_cover_one_another() -> None:
    box = boxes((100, 80, 200, 120))
    one = drawn(box, "a long caption").sum()
    two = drawn(np.concatenate([box, box]), "a long caption").sum()
    assert two > one + 0.7 * (one - drawn(box).sum())


@pytest.mark.parametrize("box", [
    (np.nan, 10, 20, 20), (10, 10, np.inf, 20), (-np.inf, 10, 20, 20), (60, 60, 20, 20), (-50, -50, -10, -10),
    (400, 10, 500, 20), (10, 1e30, 20, 2e30)])
def test_boxes_that_show_nothing_are_left_out(box: tuple[float, ...]) -> None:
    assert not drawn(np.array([box], dtype=np.float32), "cat").any()


@pytest.mark.parametrize("box", [
    (50, 50, 50, 50), (50, 50, 50, 90), (-1e30, -20, 1e30, 30), (0, 0, 300, 200)])
def test_odd_boxes_are_drawn(box: tuple[float, ...]) -> None:
    assert drawn(np.array([box], dtype=np.float32), "cat").any()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4000, 3), (4000, 1, 3), (5, 7, 3)])
def test_tiny_images(shape: tuple[int, int, int]) -> None:
    image = np.full(shape, 128, dtype=np.uint8)
    whole = boxes((0, 0, shape[1], shape[0]))
    assert drawn(whole, "cat 0.99\nin two lines", image).any()


def test_nothing_found_leaves_the_image_as_it_is() -> None:
    assert not drawn(boxes()).any()


@pytest.mark.parametrize("caption", ["", "a\tb\nc", "x" * 500, "\0" * 500, "猫" * 500, "\ud800\0"])
def test_any_caption_can_be_drawn(caption: str) -> None:
    drawn(boxes((50, 50, 90, 90)), caption)


@pytest.mark.parametrize(("first", "second"), [
    ("猫", "狗"), ("кот", "пёс"), ("고양이", "강아지"), ("חתול", "כלב"),
    ("قطة", "كلب"), ("แมว", "หมา"), ("बिल्ली", "कुत्ता"),
    ("🐱", "🐶"), ("𓃠", "𓃡"), ("\ud800", "\ud801"), ("é", "è")])
def test_names_in_any_script_look_different(first: str, second: str) -> None:
    box = boxes((50, 50, 90, 90))
    pixels = [np.asarray(draw_boxes(GREY, box, [name], np.array([0]))) for name in (first, second, "")]
    assert (pixels[0] != pixels[1]).any()
    assert (pixels[0] != pixels[2]).any()
    assert (pixels[1] != pixels[2]).any()


def test_a_long_name_is_cut_and_its_score_stays() -> None:
    wide = np.full((200, 1500, 3), 128, dtype=np.uint8)
    box = boxes((50, 50, 90, 90))
    long = drawn(box, "x" * 2_000_000 + " 0.99", wide)
    assert (long == drawn(box, "x" * 40 + " 0.99", wide)).all()
    assert (long != drawn(box, "", wide)).any()


def test_neighbouring_colours_differ() -> None:
    colours = np.array([colour_of(index) for index in range(12)], dtype=float)
    distances = [np.linalg.norm(first - second) for first, second in combinations(colours, 2)]
    assert min(distances) > 40
    assert len({colour_of(index) for index in range(100)}) > 90
    assert np.linalg.norm(colours - 128, axis=1).min() > 60


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="got \\(1, 4\\), \\(1,\\) and 2 captions"):
        draw_boxes(GREY, boxes((1, 1, 2, 2)), ["cat", "dog"], np.array([1]))
    with pytest.raises(ImageError, match="no such file"):
        draw_boxes("absent.jpg", boxes(), [], np.zeros(0, dtype=np.int64))
    assert isinstance(draw_boxes(Image.fromarray(GREY), boxes(), [], np.zeros(0, np.int64)), Image.Image)
