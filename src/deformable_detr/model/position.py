"""Sine encodings of places on a map and of boxes (Attention Is All You Need, section 3.5)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TEMPERATURE = 10_000


def sine(values: Float[Tensor, "*shape"], num_features: int,
         temperature: float = TEMPERATURE) -> Float[Tensor, "*shape features"]:
    """Sines and cosines of `values` at `num_features` / 2 wavelengths, interleaved."""
    exponents = torch.arange(num_features, dtype=values.dtype, device=values.device) // 2 * 2 / num_features
    angles = values[..., None] / temperature ** exponents
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)


@dataclass(frozen=True)
class MapPosition:
    """The encoding of each place of a map, C = `width`: y in the first half of the channels, x in the second.

    Coordinates run from 0 to 2 pi over the unpadded extent. They are measured at pixel centres with an `offset` of -0.5
    (Deformable DETR), at the far edge of each pixel with 0 (DETR).
    """

    width: int
    offset: float = -0.5
    temperature: float = TEMPERATURE

    def __call__(self, padding: Bool[Tensor, "B H W"], dtype: torch.dtype) -> Float[Tensor, "B C H W"]:
        valid = (~padding).to(dtype)
        halves = []
        for dimension in (1, 2):
            place = valid.cumsum(dimension)
            extent = place.narrow(dimension, place.shape[dimension] - 1, 1)
            angles = (place + self.offset) / (extent + 1e-6) * (2 * math.pi)
            halves.append(sine(angles, self.width // 2, self.temperature))
        return torch.cat(halves, dim=-1).permute(0, 3, 1, 2)


def box_position(boxes: Float[Tensor, "B Q 4"], width: int) -> Float[Tensor, "B Q features"]:
    """The encoding of cxcywh boxes in [0, 1]: `width` / 2 features a coordinate; temperature 10000 in every paper."""
    return sine(boxes * (2 * math.pi), width // 2).flatten(-2)


def anchor_position(boxes: Float[Tensor, "B Q 4"], width: int) -> Float[Tensor, "B Q features"]:
    """As `box_position`, but y before x, the order that maps have (DAB-DETR, arXiv 2201.12329, section 4.2)."""
    return box_position(boxes[..., [1, 0, 2, 3]], width)
