"""An image of what the model finds on validation images, beside the truth."""

import io

import numpy as np
import PIL.Image

from deformable_detr.detect.detector import Detector
from deformable_detr.drawing import draw_boxes
from deformable_detr.loading.dataset import DetectionDataset

NUM_IMAGES = 4
SIDE = 480          # pixels, the longer side of each
THRESHOLD = 0.3     # low, so that a young model shows something
GAP = 8


def draw_validation(detector: Detector, data: DetectionDataset) -> bytes:
    """Images spread over the data set: left the truth, right the detections. As PNG."""
    chosen = np.linspace(0, len(data) - 1, min(NUM_IMAGES, len(data))).round().astype(int)
    rows = [_row(detector, data, int(index)) for index in chosen]
    sheet = PIL.Image.new("RGB", (max(row.width for row in rows), sum(row.height + GAP for row in rows) - GAP),
                          "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + GAP
    drawn = io.BytesIO()
    sheet.save(drawn, "PNG")
    return drawn.getvalue()


def _row(detector: Detector, data: DetectionDataset, index: int) -> PIL.Image.Image:
    image = data.image(index)
    boxes, labels = data.truth(index)
    truth = draw_boxes(image, boxes.numpy(), [data.names[label] for label in labels], labels.numpy())
    found = detector(image, THRESHOLD).draw(image)
    width, height = truth.size
    factor = min(1.0, SIDE / max(width, height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    row = PIL.Image.new("RGB", (2 * size[0] + GAP, size[1]), "white")
    row.paste(truth.resize(size, PIL.Image.Resampling.LANCZOS), (0, 0))
    row.paste(found.resize(size, PIL.Image.Resampling.LANCZOS), (size[0] + GAP, 0))
    return row
