"""Entries of an annotation file and images, made up for the tests."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image


def image_entry(identity: int, file_name: str, width: int, height: int) -> dict[str, Any]:
    return {"id": identity, "file_name": file_name, "width": width, "height": height}


def box(identity: int, image_id: int, category_id: int, bbox: list[float], **others: Any) -> dict[str, Any]:
    return {"id": identity, "image_id": image_id, "category_id": category_id, "bbox": bbox,
            "area": bbox[2] * bbox[3], "iscrowd": 0, **others}


def paint(path: Path, width: int, height: int, **options: Any) -> None:
    """An image whose colours tell where each pixel was: red grows downwards, green to the right."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 255 // max(1, height - 1), columns * 255 // max(1, width - 1),
                       np.full((height, width), 128)], axis=-1)
    PIL.Image.fromarray(pixels.astype(np.uint8)).save(path, **options)
