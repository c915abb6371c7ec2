"""An image of what the model detects in some validation images, next to their annotations."""

import io
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont

from deformable_detr.detect.detector import Detector
from deformable_detr.drawing import draw_boxes
from deformable_detr.loading.dataset import DetectionDataset

NUM_IMAGES = 4
SIDE = 480          # pixels, the longer side of each
THRESHOLD = 0.3     # low, so that a model shows something early in its training
GAP = 8
HEADINGS = ("truth", f"detections with a score of at least {THRESHOLD}")
HEADING_SIZE = 18


class Row(NamedTuple):
    """Two drawings of one image."""

    truth: PIL.Image.Image
    found: PIL.Image.Image


def draw_validation(detector: Detector, data: DetectionDataset) -> bytes:
    """Images spread over the data set in two columns, the annotations and the detections, as a PNG file."""
    chosen = np.linspace(0, len(data) - 1, min(NUM_IMAGES, len(data))).round().astype(int)
    rows = [_draw_row(detector, data, int(index)) for index in chosen]
    font = ImageFont.load_default(HEADING_SIZE)
    column = max(*(row.truth.width for row in rows), *(round(font.getlength(heading)) for heading in HEADINGS)) + GAP
    top = HEADING_SIZE + 2 * GAP
    sheet = PIL.Image.new("RGB", (2 * column, top + sum(row.truth.height + GAP for row in rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, heading in enumerate(HEADINGS):
        draw.text((place * column + GAP // 2, GAP), heading, font=font, fill="black")
    for row in rows:
        for place, image in enumerate(row):
            sheet.paste(image, (place * column + GAP // 2, top))
        top += row.truth.height + GAP
    drawn = io.BytesIO()
    sheet.save(drawn, "PNG")
    return drawn.getvalue()


def _draw_row(detector: Detector, data: DetectionDataset, index: int) -> Row:
    image = data.image(index)
    boxes, labels = data.truth(index)
    truth = draw_boxes(image, boxes.numpy(), [data.names[label] for label in labels], labels.numpy())
    # A class has one colour on both sides, whatever its number in the model.
    colours = [*data.names, *(name for name in detector.names if name not in data.names)]
    found = detector(image, THRESHOLD)
    found = replace(found, labels=np.array([colours.index(name) for name in found.names], np.int64)).draw(image)
    factor = min(1.0, SIDE / max(truth.size))
    size = max(1, round(truth.width * factor)), max(1, round(truth.height * factor))
    return Row(truth.resize(size, PIL.Image.Resampling.LANCZOS), found.resize(size, PIL.Image.Resampling.LANCZOS))
