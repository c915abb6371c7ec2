"""Boxes with captions on an image, from plain arrays; lines and letters grow with the image."""

import base64
import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import PIL.Image
from jaxtyping import Int, Num
from PIL import ImageDraw

from deformable_detr.fonts import Lettering, lettering
from deformable_detr.images import ImageSource, read_image

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]   # x0, y0, x1, y1 in whole pixels, both corners included

LIGHTNESS = (0.72, 0.60, 0.82)   # of classes in turn; OKLab, 0 black to 1 white
MAX_LETTERS = 40   # of a name in a caption: measuring each takes time, and Pillow refuses very many
SCORE_LETTERS = len(" 0.99")
CHROMA = 0.17
GOLDEN_ANGLE = np.pi * (3 - 5 ** 0.5)   # keeps the hues of successive classes apart

OKLAB_TO_LMS = np.array([[1, 0.3963377774, 0.2158037573],
                         [1, -0.1055613458, -0.0638541728],
                         [1, -0.0894841775, -1.2914855480]])
LMS_TO_LINEAR_RGB = np.array([[4.0767416621, -3.3077115913, 0.2309699292],
                              [-1.2684380046, 2.6097574011, -0.3413193965],
                              [-0.0041960863, -0.7034186147, 1.7076147010]])


def draw_boxes(image: ImageSource, boxes: Num[np.ndarray, "T 4"], captions: Sequence[str],
               classes: Int[np.ndarray, "T"]) -> PIL.Image.Image:
    """The upright image with a box and a caption for each row, in the colour of its class.

    `boxes` are xyxy in pixels, the most important first: it is drawn on top. Boxes that are not finite, have their
    corners swapped or are outside the image are left out, and so are captions wider than the image. Letters that no
    font has are drawn as code points (U+732B). Raises ImageError for a bad image, ValueError if the lengths differ.
    """
    if boxes.shape != (len(captions), 4) or classes.shape != (len(captions),):
        raise ValueError(f"expected as many boxes (N, 4) and classes (N,) as captions, got {boxes.shape}, "
                         f"{classes.shape} and {len(captions)} captions")
    return draw_coloured(image, boxes, captions, [colour_of(int(index)) for index in classes])


def draw_coloured(image: ImageSource, boxes: Num[np.ndarray, "T 4"], captions: Sequence[str],
                  colours: Sequence[Colour]) -> PIL.Image.Image:
    """As `draw_boxes`, with a colour for each box."""
    canvas = PIL.Image.fromarray(read_image(image))
    rectangles = [_inside(box, canvas.size) for box in boxes]
    shown = [(rectangle, _caption(caption), colour)
             for rectangle, caption, colour in zip(rectangles, captions, colours, strict=True) if rectangle]
    draw = ImageDraw.Draw(canvas)
    for rectangle, _, colour in reversed(shown):
        _outline(draw, rectangle, colour)
    _write_captions(draw, shown)
    return canvas


@lru_cache(maxsize=1024)
def colour_of(index: int) -> Colour:
    """The colour of a class index: hues a golden angle apart at three lightnesses."""
    hue = 0.45 + index * GOLDEN_ANGLE
    oklab = np.array([LIGHTNESS[index % len(LIGHTNESS)], CHROMA * np.cos(hue), CHROMA * np.sin(hue)])
    linear = (LMS_TO_LINEAR_RGB @ (OKLAB_TO_LMS @ oklab) ** 3).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(float(channel) * 255) for channel in encoded)
    return red, green, blue


def _caption(text: str) -> Lettering:
    """A caption in one line that is not too long, with its font."""
    lettered = lettering(_shortened(" ".join(text.split())))
    return Lettering(_shortened(lettered.text), lettered.file)   # code points are longer than their letters


def _shortened(line: str) -> str:
    """A long line without its middle: a score is at its end."""
    return line if len(line) <= MAX_LETTERS + SCORE_LETTERS else line[:MAX_LETTERS] + line[-SCORE_LETTERS:]


def _line_width(size: tuple[int, int]) -> int:
    return max(2, round(0.0035 * (size[0] * size[1]) ** 0.5))


def _inside(box: np.ndarray, size: tuple[int, int]) -> Rectangle | None:
    """The part of a box within the image in whole pixels, None if there is none."""
    width, height = size
    x0, y0, x1, y1 = (float(edge) for edge in box)
    visible = x0 <= x1 and y0 <= y1 and x0 <= width and y0 <= height and min(x1, y1) >= 0
    if not visible or not np.isfinite(box).all():
        return None
    return (round(min(max(x0, 0), width - 1)), round(min(max(y0, 0), height - 1)),
            round(min(max(x1, 0), width - 1)), round(min(max(y1, 0), height - 1)))


def _outline(draw: ImageDraw.ImageDraw, rectangle: Rectangle, colour: Colour) -> None:
    """A coloured line between two thin dark ones, visible on any background."""
    line = _line_width(draw.im.size)
    x0, y0, x1, y1 = rectangle
    shade = tuple(channel // 4 for channel in colour)
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=shade, width=line + 2)
    draw.rectangle(rectangle, outline=colour, width=line)


def _write_captions(draw: ImageDraw.ImageDraw, shown: Sequence[tuple[Rectangle, Lettering, Colour]]) -> None:
    """A filled tag for each caption, at the place around its box that overlaps the tags before it least."""
    size = draw.im.size
    letter_size = max(11, round(0.026 * (size[0] * size[1]) ** 0.5))
    margin = _line_width(size)
    taken = np.zeros((0, 4), dtype=np.int64)
    for rectangle, caption, colour in shown:
        font = caption.font(letter_size)
        height = round(max(font.getbbox("Ég")[3], font.getbbox(caption.text)[3]))   # from the accent to the tail
        tag = round(font.getlength(caption.text)) + 2 * margin, height + margin
        if not caption.text or tag[0] > size[0] or tag[1] > size[1]:
            continue
        places = _places(rectangle, tag, size)
        x0, y0, x1, y1 = place = places[_overlaps(places, taken).argmin()].tolist()
        taken = np.concatenate([taken, [place]])
        draw.rectangle((x0, y0, x1, y1), fill=colour)
        draw.text((x0 + margin, y0), caption.text, font=font, fill=_readable_on(colour))


def _places(rectangle: Rectangle, tag: tuple[int, int], size: tuple[int, int]) -> Int[np.ndarray, "places 4"]:
    """Where a tag may go, best first, moved into the image: above the box, within, below; at its left, its right."""
    x0, y0, x1, y1 = rectangle
    width, height = tag
    corners = [(x, y) for y in (y0 - height, y0, y1, y1 - height) for x in (x0, x1 - width + 1)]
    pushed = [(min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)) for x, y in corners]
    return np.array([(x, y, x + width - 1, y + height - 1) for x, y in pushed])


def _overlaps(places: Int[np.ndarray, "places 4"],
              taken: Int[np.ndarray, "T 4"]) -> Int[np.ndarray, "places"]:
    """How many pixels of each place are taken, counted once for each tag there."""
    first = np.maximum(places[:, None, :2], taken[None, :, :2])
    last = np.minimum(places[:, None, 2:], taken[None, :, 2:])
    return (last - first + 1).clip(0).prod(axis=2).sum(axis=1)


def _readable_on(colour: Colour) -> Colour:
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else (255, 255, 255)


def data_url(image: PIL.Image.Image) -> str:
    """An image as a JPEG for the `src` of a page."""
    content = io.BytesIO()
    image.convert("RGB").save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
