"""Sine positions: of places on a map, and of proposed boxes (Attention Is All You Need, section 3.5)."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TEMPERATURE = 10_000


def sine(values: Float[Tensor, "*shape"], num_features: int) -> Float[Tensor, "*shape features"]:
    """Sines and cosines of `values` at `num_features` / 2 wavelengths, interleaved."""
    exponents = torch.arange(num_features, dtype=torch.float32, device=values.device) // 2 * 2 / num_features
    angles = values[..., None] / TEMPERATURE ** exponents
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)


def map_position(padding: Bool[Tensor, "B H W"], width: int) -> Float[Tensor, "B C H W"]:
    """Position of each place of a map, C = `width`: y in the first half of the channels, x in the second.

    Coordinates run to 2 pi over the unpadded extent, from pixel centres (DETR's own do not subtract the half).
    """
    valid = (~padding).float()
    halves = []
    for dimension in (1, 2):
        place = valid.cumsum(dimension)
        extent = place.narrow(dimension, place.shape[dimension] - 1, 1)
        halves.append(sine((place - 0.5) / (extent + 1e-6) * (2 * math.pi), width // 2))
    return torch.cat(halves, dim=-1).permute(0, 3, 1, 2)


def box_position(boxes: Float[Tensor, "B Q 4"], width: int) -> Float[Tensor, "B Q features"]:
    """Position of proposed cxcywh boxes in [0, 1]: `width` / 2 features a coordinate."""
    return sine(boxes * (2 * math.pi), width // 2).flatten(-2)
