"""One query in one decoder layer, drawn on the image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from jaxtyping import Float
from PIL import ImageDraw
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.drawing import Colour, draw_coloured
from deformable_detr.fonts import lettering

if TYPE_CHECKING:
    from deformable_detr.explain.explanation import Explanation, Reading

# Okabe and Ito's palette, which most colour-blind readers can tell apart; finest level first.
LEVEL_COLOURS: tuple[Colour, ...] = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66))
BOX_COLOUR: Colour = (213, 94, 0)
HEAT_COLOUR: Colour = (240, 228, 66)
SMALLEST_SIDE = 600     # pixels of the longer side
SMOOTHING = 3           # points are drawn this many times larger, then reduced
LARGEST_POINT = 0.016   # radius of the greatest weight, of the longer side
LETTERS = 14            # pixels
FAINTEST = 0.25         # opacity of a weight of 0


def draw_query(explanation: "Explanation", query: int, layer: int = -1) -> PIL.Image.Image:
    """What a query read in a layer, around which reference, and its box after the layer."""
    reading = explanation.reading(query, layer)
    canvas = _enlarged(explanation.image)
    if reading.attention is None:
        overlay = _points(reading, canvas.size)
    else:
        height, width = explanation.valid_shapes[0]
        overlay = _heat(reading.attention[:, :height, :width], canvas.size)
    canvas = PIL.Image.alpha_composite(canvas.convert("RGBA"), overlay).convert("RGB")
    score, label = float(explanation.scores[layer][query]), int(explanation.labels[layer][query])
    box = cxcywh_to_xyxy(explanation.boxes[layer][query]).numpy() * np.array([*canvas.size, *canvas.size])
    canvas = draw_coloured(canvas, box[None], [f"{explanation.class_names[label]} {score:.2f}"], [BOX_COLOUR])
    _draw_reference(canvas, explanation.references[layer][query])
    if reading.weights is not None:
        _write_legend(canvas, explanation.strides, box)
    return canvas


def _enlarged(image: PIL.Image.Image) -> PIL.Image.Image:
    scale = SMALLEST_SIDE / max(image.size)
    if scale <= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))),
                        PIL.Image.Resampling.BICUBIC)


def _points(reading: "Reading", size: tuple[int, int]) -> PIL.Image.Image:
    """A disc for each point, the greatest weights on top; its area and opacity follow the weight."""
    assert reading.locations is not None
    assert reading.weights is not None
    overlay = PIL.Image.new("RGBA", (size[0] * SMOOTHING, size[1] * SMOOTHING))
    draw = ImageDraw.Draw(overlay)
    places = reading.locations.nan_to_num(nan=-1).clamp(-1, 2).numpy() * overlay.size
    weights = reading.weights.numpy()
    largest = LARGEST_POINT * max(overlay.size)
    for head, level, point in np.argwhere(np.isfinite(weights))[weights.ravel().argsort()]:
        share = weights[head, level, point] / weights.max()
        x, y = places[head, level, point]
        radius = max(1.0, largest * share ** 0.5)
        opacity = round(255 * (FAINTEST + (1 - FAINTEST) * share))
        colour = LEVEL_COLOURS[level % len(LEVEL_COLOURS)]
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*colour, opacity),
                     outline=(0, 0, 0, opacity), width=SMOOTHING)
    return overlay.resize(size, PIL.Image.Resampling.BOX)


def _heat(attention: Float[Tensor, "M H W"], size: tuple[int, int]) -> PIL.Image.Image:
    """The summed attention of all heads, opaque where it is greatest."""
    summed = attention.sum(0).numpy()
    shares = PIL.Image.fromarray((summed / summed.max() * 217).astype(np.uint8))
    overlay = PIL.Image.new("RGBA", size, (*HEAT_COLOUR, 255))
    overlay.putalpha(shares.resize(size, PIL.Image.Resampling.BILINEAR))
    return overlay


def _draw_reference(canvas: PIL.Image.Image, reference: Float[Tensor, "R"]) -> None:
    """A cross at a point; a thin box with a cross at its centre. DETR's queries have no reference."""
    if not len(reference):
        return
    draw = ImageDraw.Draw(canvas)
    size = np.array(canvas.size)
    x, y = reference[:2].numpy() * size
    arm = 0.014 * max(size)
    for colour, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        draw.line((x - arm, y, x + arm, y), fill=colour, width=width)
        draw.line((x, y - arm, x, y + arm), fill=colour, width=width)
        if len(reference) == 4:
            edges = cxcywh_to_xyxy(reference).numpy() * np.tile(size, 2)
            draw.rectangle(tuple(edges.tolist()), outline=colour, width=1 if colour[0] else 3)


def _write_legend(canvas: PIL.Image.Image, strides: Sequence[int], box: Float[np.ndarray, "4"]) -> None:
    """Which colour is which level, in the corner that hides the least of the box; none on an image too small for it."""
    font = lettering("stride").font(LETTERS)
    texts = [f"stride {stride}" for stride in strides]
    row = LETTERS + 6
    width, height = max(round(font.getlength(text)) for text in texts) + 2 * row, row * len(texts) + row // 2
    if 2 * width > canvas.width or 2 * height > canvas.height:
        return
    corners = [(x, y) for y in (canvas.height - height, 0) for x in (0, canvas.width - width)]
    left, top = min(corners, key=lambda corner: _hidden(box, *corner, corner[0] + width, corner[1] + height))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((left, top, left + width, top + height), fill=(255, 255, 255))
    for level, text in enumerate(texts):
        x, y = left + row // 2, top + row // 4 + level * row
        draw.ellipse((x, y + 3, x + LETTERS, y + 3 + LETTERS), outline=(0, 0, 0),
                     fill=LEVEL_COLOURS[level % len(LEVEL_COLOURS)])
        draw.text((x + LETTERS + 8, y), text, font=font, fill=(0, 0, 0))


def _hidden(box: Float[np.ndarray, "4"], x0: int, y0: int, x1: int, y1: int) -> float:
    """Pixels of a box within a rectangle."""
    return float(max(0, min(box[2], x1) - max(box[0], x0)) * max(0, min(box[3], y1) - max(box[1], y0)))
