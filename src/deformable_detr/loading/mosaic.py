"""Four images in one: more objects, smaller, in other surroundings (YOLOv4, arXiv 2004.10934, section 3.3)."""

from collections.abc import Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torchvision.transforms import v2

from deformable_detr.boxes import area
from deformable_detr.structures import ImageSize

CENTRE = (0.3, 0.7)      # where the four corners meet, as a share of height and width
MAX_ZOOM = 2.0           # how much larger an image may be than its quarter requires
LEAST_VISIBLE = 0.3      # share of an object that must be left when an image is cut


class Annotated(NamedTuple):
    """A decoded image and its objects."""

    image: UInt8[np.ndarray, "H W 3"]
    boxes: Float[Tensor, "T 4"]        # xyxy in pixels
    labels: Int64[Tensor, "T"]


def mosaic(four: Sequence[Annotated], size: ImageSize) -> Annotated:
    """A part of each of four images, in a frame of `size` (height, width); random by torch's generator."""
    height, width = size
    rows, columns = ((0, _between(*(share * extent for share in CENTRE)), extent) for extent in size)
    whole = np.empty((height, width, 3), np.uint8)
    boxes, labels = [], []
    for part, ((top, bottom), (left, right)) in zip(four, product(pairwise(rows), pairwise(columns)), strict=True):
        if top == bottom or left == right:   # in a frame of few pixels
            continue
        filled = _fill(part, (bottom - top, right - left))
        whole[top:bottom, left:right] = filled.image
        boxes.append(filled.boxes + torch.tensor([left, top, left, top]))
        labels.append(filled.labels)
    return Annotated(whole, torch.cat(boxes), torch.cat(labels))


def _fill(part: Annotated, size: ImageSize) -> Annotated:
    """A window of the image, resized to `size`, with the objects that are sufficiently inside."""
    extent = part.image.shape[:2]
    zoom = max(room / side for room, side in zip(size, extent, strict=True)) * MAX_ZOOM ** float(torch.rand(()))
    sides = [max(1, min(side, round(room / zoom))) for room, side in zip(size, extent, strict=True)]
    top, left = (_between(0, whole - side) for whole, side in zip(extent, sides, strict=True))
    window = part.image[top:top + sides[0], left:left + sides[1]]
    image = v2.functional.resize(torch.from_numpy(window).permute(2, 0, 1), list(size), antialias=True)
    cut = part.boxes - torch.tensor([left, top, left, top])
    cut = torch.minimum(cut.clamp(min=0), torch.tensor([sides[1], sides[0]] * 2))
    kept = visible(part.boxes, cut)
    scale = torch.tensor([size[1] / sides[1], size[0] / sides[0]] * 2)
    return Annotated(image.permute(1, 2, 0).numpy(), cut[kept] * scale, part.labels[kept])


def visible(before: Float[Tensor, "T 4"], after: Float[Tensor, "T 4"]) -> Tensor:
    """(T,) Which xyxy boxes keep enough of their area when the image is cut, at the same scale."""
    return area(after) > LEAST_VISIBLE * area(before)


def _between(least: float, most: float) -> int:
    """A whole number in [least, most], both rounded down, from torch's generator."""
    return int(torch.randint(int(least), int(most) + 1, ()))
