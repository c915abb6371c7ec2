"""[C3, C4, C5] -> Pyramid: L levels of equal width as one token sequence (paper, section 4.1 and figure 4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deformable_detr.model.position import map_position
from deformable_detr.papers.config import GROUPS
from deformable_detr.structures import Features, Pyramid


class PyramidBuilder(nn.Module):
    """Projects the backbone's maps to `width` channels and convolves further, coarser levels from the last.

    `channels` are those of the backbone's maps; `num_levels` at least as many.
    """

    def __init__(self, channels: Sequence[int], width: int, num_levels: int) -> None:
        super().__init__()
        self.width = width
        projections = [projection(size, width, kernel=1) for size in channels]
        for level in range(len(channels), num_levels):
            # The fourth level reads the raw C5, not the projected one; each later level reads the level before.
            inputs = channels[-1] if level == len(channels) else width
            projections.append(projection(inputs, width, kernel=3))
        self.projections = nn.ModuleList(projections)
        self.level_embedding = nn.Parameter(torch.randn(num_levels, width))

    def forward(self, features: Features) -> Pyramid:
        levels = self.project(features.maps)
        paddings = [resize_padding(features.padding, level.shape[-2:]) for level in levels]
        positions = [map_position(padding, self.width) + embedding[:, None, None]
                     for padding, embedding in zip(paddings, self.level_embedding, strict=True)]
        return Pyramid(
            tokens=flatten(levels),
            position=flatten(positions),
            padding=torch.cat([padding.flatten(1) for padding in paddings], dim=1),
            valid_ratios=torch.stack([valid_ratio(padding) for padding in paddings], dim=1),
            level_shapes=tuple((level.shape[2], level.shape[3]) for level in levels))

    def project(self, maps: Sequence[Tensor]) -> list[Float[Tensor, "B C _ _"]]:
        """The maps of all L levels at equal width."""
        levels = [layer(values) for layer, values in zip(self.projections, maps, strict=False)]
        source = maps[-1]
        for layer in self.projections[len(maps):]:
            source = layer(source)
            levels.append(source)
        return levels


class GroupNorm(nn.GroupNorm):
    """torch's, but a group of one value is allowed: a 1 x 1 map of 32 channels is a small image, no mistake."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def projection(inputs: int, width: int, kernel: int) -> nn.Sequential:
    """A 1 x 1 convolution, or a 3 x 3 one of stride 2, and a group norm."""
    convolution = nn.Conv2d(inputs, width, kernel, stride=1 if kernel == 1 else 2, padding=kernel // 2)
    nn.init.xavier_uniform_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(convolution, GroupNorm(GROUPS, width))


def flatten(maps: list[Float[Tensor, "B C _ _"]]) -> Float[Tensor, "B N C"]:
    """Maps of all levels as one sequence of tokens."""
    return torch.cat([values.flatten(2).transpose(1, 2) for values in maps], dim=1)


def resize_padding(padding: Bool[Tensor, "B H W"], size: tuple[int, ...]) -> Bool[Tensor, "B height width"]:
    """The padding of the images seen at a map's size (height, width), by nearest neighbour."""
    return F.interpolate(padding[:, None].float(), size=tuple(size))[:, 0] > 0.5


def valid_ratio(padding: Bool[Tensor, "B H W"]) -> Float[Tensor, "B 2"]:
    """Unpadded share of a map's width and height."""
    height = (~padding[:, :, 0]).float().mean(1)
    width = (~padding[:, 0, :]).float().mean(1)
    return torch.stack([width, height], dim=-1)


def token_centres(pyramid: Pyramid) -> Float[Tensor, "B N 2"]:
    """The centre of every token, x and y in [0, 1] of the unpadded image; beyond 1 in the padding."""
    centres = []
    for level, (height, width) in enumerate(pyramid.level_shapes):
        y, x = torch.meshgrid(centre_line(height, pyramid.tokens), centre_line(width, pyramid.tokens), indexing="ij")
        places = torch.stack([x.flatten(), y.flatten()], dim=-1)
        ratios = pyramid.valid_ratios[:, None, level]
        # A tensor made of the two numbers would be a copy from the host, for which a GPU must wait.
        extent = torch.stack([ratios[..., 0] * width, ratios[..., 1] * height], dim=-1)
        centres.append(places / extent)
    return torch.cat(centres, dim=1)


def centre_line(length: int, like: Tensor) -> Float[Tensor, "length"]:
    """Pixel centres 0.5, 1.5, ... along a line of `length` places."""
    return torch.arange(length, dtype=torch.float32, device=like.device) + 0.5
