"""Boxes and points on an image, from plain arrays. Lines and letters follow the size of the image."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import PIL.Image
from jaxtyping import Int, Num
from PIL import ImageDraw, ImageFont

from deformable_detr.images import ImageSource, read_image

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]   # x0, y0, x1, y1 in whole pixels, both ends inside

LIGHTNESS = (0.72, 0.60, 0.82)   # of neighbouring classes; OKLab, 0 black to 1 white
MAX_LETTERS = 40   # of a class in a caption: each takes time to be measured, and Pillow refuses very many
SCORE_LETTERS = len(" 0.99")
CHROMA = 0.17
GOLDEN_ANGLE = np.pi * (3 - 5 ** 0.5)   # successive hues never come near one another

OKLAB_TO_LMS = np.array([[1, 0.3963377774, 0.2158037573],
                         [1, -0.1055613458, -0.0638541728],
                         [1, -0.0894841775, -1.2914855480]])
LMS_TO_LINEAR_RGB = np.array([[4.0767416621, -3.3077115913, 0.2309699292],
                              [-1.2684380046, 2.6097574011, -0.3413193965],
                              [-0.0041960863, -0.7034186147, 1.7076147010]])


def draw_boxes(image: ImageSource, boxes: Num[np.ndarray, "T 4"], captions: Sequence[str],
               classes: Int[np.ndarray, "T"]) -> PIL.Image.Image:
    """The upright image with a box and a caption for each row, in the colour of its class.

    `boxes` are xyxy in pixels, the most important first: it lies on top. A box that is not finite, turned
    inside out or outside of the image is left out; so is a caption for which the image is too small.
    Raises ImageError for a bad image and ValueError when the arrays do not fit together.
    """
    if boxes.shape != (len(captions), 4) or classes.shape != (len(captions),):
        raise ValueError(f"expected as many boxes (N, 4) and classes (N,) as captions, got {boxes.shape}, "
                         f"{classes.shape} and {len(captions)} captions")
    return draw_coloured(image, boxes, captions, [colour_of(int(index)) for index in classes])


def draw_coloured(image: ImageSource, boxes: Num[np.ndarray, "T 4"], captions: Sequence[str],
                  colours: Sequence[Colour]) -> PIL.Image.Image:
    """As `draw_boxes`, with a colour for each box; one of each a box."""
    canvas = PIL.Image.fromarray(read_image(image))
    rectangles = [_inside(box, canvas.size) for box in boxes]
    shown = [(rectangle, _one_line(caption), colour)
             for rectangle, caption, colour in zip(rectangles, captions, colours, strict=True) if rectangle]
    draw = ImageDraw.Draw(canvas)
    for rectangle, _, colour in reversed(shown):
        _outline(draw, rectangle, colour)
    _write_captions(draw, shown)
    return canvas


def draw_points(image: ImageSource, points: Num[np.ndarray, "P 2"],
                weights: Num[np.ndarray, "P"] | None = None,
                classes: Int[np.ndarray, "P"] | None = None) -> PIL.Image.Image:
    """The upright image with a disc at each point (x, y in pixels), in the colour of its class.

    The area of a disc follows its weight beside the largest weight; without `weights` all are equal, without
    `classes` all have one colour. Left out: points and weights that are not finite, weights of 0 or less.
    Raises ImageError for a bad image and ValueError when the arrays do not fit together.
    """
    weights = np.ones(len(points)) if weights is None else weights
    classes = np.zeros(len(points), dtype=np.int64) if classes is None else classes
    if points.shape != (len(weights), 2) or classes.shape != (len(weights),):
        raise ValueError(f"expected as many points (N, 2) and classes (N,) as weights (N,), "
                         f"got {points.shape}, {classes.shape} and {weights.shape}")
    canvas = PIL.Image.fromarray(read_image(image))
    visible = np.isfinite(points).all(axis=1) & np.isfinite(weights) & (weights > 0)
    largest = 4 * _line_width(canvas.size)
    top = max(weights[visible], default=1)
    for index in sorted(np.flatnonzero(visible), key=lambda point: -weights[point]):   # the small ones on top
        radius = max(2, round(largest * float(weights[index] / top) ** 0.5))
        _paste_disc(canvas, points[index], radius, colour_of(int(classes[index])))
    return canvas


@lru_cache(maxsize=1024)
def colour_of(index: int) -> Colour:
    """The colour of a class: hues a golden angle apart at three lightnesses, so that all differ."""
    hue = 0.45 + index * GOLDEN_ANGLE
    oklab = np.array([LIGHTNESS[index % len(LIGHTNESS)], CHROMA * np.cos(hue), CHROMA * np.sin(hue)])
    linear = (LMS_TO_LINEAR_RGB @ (OKLAB_TO_LMS @ oklab) ** 3).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(float(channel) * 255) for channel in encoded)
    return red, green, blue


def _one_line(caption: str) -> str:
    """A caption without line breaks, cut before its end where it is long: a score stands there."""
    line = " ".join(caption.split())
    return line if len(line) <= MAX_LETTERS + SCORE_LETTERS else line[:MAX_LETTERS] + line[-SCORE_LETTERS:]


def _line_width(size: tuple[int, int]) -> int:
    return max(2, round(0.0035 * (size[0] * size[1]) ** 0.5))


def _inside(box: np.ndarray, size: tuple[int, int]) -> Rectangle | None:
    """The visible part of a box in whole pixels, None where there is none."""
    width, height = size
    x0, y0, x1, y1 = (float(edge) for edge in box)
    visible = x0 <= x1 and y0 <= y1 and x0 <= width and y0 <= height and min(x1, y1) >= 0
    if not visible or not np.isfinite(box).all():
        return None
    return (round(min(max(x0, 0), width - 1)), round(min(max(y0, 0), height - 1)),
            round(min(max(x1, 0), width - 1)), round(min(max(y1, 0), height - 1)))


def _outline(draw: ImageDraw.ImageDraw, rectangle: Rectangle, colour: Colour) -> None:
    """A coloured line between two thin dark ones, visible on any ground."""
    line = _line_width(draw.im.size)
    x0, y0, x1, y1 = rectangle
    shade = tuple(channel // 4 for channel in colour)
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=shade, width=line + 2)
    draw.rectangle(rectangle, outline=colour, width=line)


def _write_captions(draw: ImageDraw.ImageDraw, shown: Sequence[tuple[Rectangle, str, Colour]]) -> None:
    """A filled tag a caption, at whichever place about its box is the least taken by better ones."""
    size = draw.im.size
    font = ImageFont.load_default(max(11, round(0.026 * (size[0] * size[1]) ** 0.5)))
    margin = _line_width(size)
    height = round(font.getbbox("Ég")[3]) + margin   # from the accent to the tail
    taken = np.zeros((0, 4), dtype=np.int64)
    for rectangle, caption, colour in shown:
        tag = round(font.getlength(caption)) + 2 * margin, height
        if not caption or tag[0] > size[0] or tag[1] > size[1]:
            continue
        places = _places(rectangle, tag, size)
        x0, y0, x1, y1 = place = places[_overlaps(places, taken).argmin()].tolist()
        taken = np.concatenate([taken, [place]])
        draw.rectangle((x0, y0, x1, y1), fill=colour)
        draw.text((x0 + margin, y0), caption, font=font, fill=_readable_on(colour))


def _places(rectangle: Rectangle, tag: tuple[int, int], size: tuple[int, int]) -> Int[np.ndarray, "places 4"]:
    """Where a tag may stand, the best first, pushed into the image: above, within, below; left, right."""
    x0, y0, x1, y1 = rectangle
    width, height = tag
    corners = [(x, y) for y in (y0 - height, y0, y1, y1 - height) for x in (x0, x1 - width + 1)]
    pushed = [(min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)) for x, y in corners]
    return np.array([(x, y, x + width - 1, y + height - 1) for x, y in pushed])


def _overlaps(places: Int[np.ndarray, "places 4"],
              taken: Int[np.ndarray, "T 4"]) -> Int[np.ndarray, "places"]:
    """How many pixels each place has in common with all that are taken."""
    first = np.maximum(places[:, None, :2], taken[None, :, :2])
    last = np.minimum(places[:, None, 2:], taken[None, :, 2:])
    return (last - first + 1).clip(0).prod(axis=2).sum(axis=1)


def _readable_on(colour: Colour) -> Colour:
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else (255, 255, 255)


def _paste_disc(canvas: PIL.Image.Image, centre: np.ndarray, radius: int, colour: Colour) -> None:
    """A disc with a white rim and smooth edges; what lies outside of the image is cut off."""
    if np.abs(centre).max() > max(canvas.size) + radius:   # far outside: Pillow's coordinates are 32-bit
        return
    left, top = (round(float(place)) - radius for place in centre)
    rim, disc = _disc_masks(radius)
    canvas.paste((255, 255, 255), (left, top), rim)
    canvas.paste(colour, (left, top), disc)


@lru_cache(maxsize=256)
def _disc_masks(radius: int) -> tuple[PIL.Image.Image, PIL.Image.Image]:
    """Coverage of a disc, with and without its rim, as images of side 2 x radius + 1."""
    side = 2 * radius + 1
    y, x = np.mgrid[:side, :side]
    distance = np.hypot(x - radius, y - radius)
    rim = max(1.0, radius / 5)
    whole, inner = (255 * (radius + 0.5 - edge - distance).clip(0, 1) for edge in (0, rim))
    return PIL.Image.fromarray(whole.astype(np.uint8)), PIL.Image.fromarray(inner.astype(np.uint8))
