"""[C3, C4, C5] -> Pyramid: L levels of equal width as one token sequence (paper, appendix A.2 and figure 4)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from deformable_detr.model.position import MapPosition
from deformable_detr.structures import Features, Pyramid

GROUPS = 32   # of the group norm after each projection


class PyramidBuilder(nn.Module):
    """Projects the backbone's maps to `position.width` channels and convolves further, coarser levels from the last.

    `channels` are those of the backbone's maps; `num_levels` at least as many.
    """

    def __init__(self, channels: Sequence[int], num_levels: int, position: MapPosition) -> None:
        super().__init__()
        width = position.width
        self.position = position
        projections = [projection(size, width, kernel=1) for size in channels]
        for level in range(len(channels), num_levels):
            # The fourth level is convolved from the raw C5, not the projected one; later levels from the one before.
            inputs = channels[-1] if level == len(channels) else width
            projections.append(projection(inputs, width, kernel=3))
        self.projections = nn.ModuleList(projections)
        self.level_embedding = nn.Parameter(torch.empty(num_levels, width).normal_())

    def forward(self, features: Features) -> Pyramid:
        levels = self.project(features.maps)
        paddings = [resize_padding(features.padding, level.shape[-2:]) for level in levels]
        precise = torch.promote_types(self.level_embedding.dtype, torch.float32)
        positions = [self.position(padding, precise) + embedding[:, None, None]
                     for padding, embedding in zip(paddings, self.level_embedding, strict=True)]
        return Pyramid(
            tokens=flatten(levels),
            position=flatten(positions).to(self.level_embedding.dtype),
            padding=torch.cat([padding.flatten(1) for padding in paddings], dim=1),
            level_shapes=tuple((level.shape[2], level.shape[3]) for level in levels),
            valid_ratios=torch.stack([valid_ratio(padding) for padding in paddings], dim=1).to(precise),
            is_padded=features.is_padded)

    def project(self, maps: Sequence[Tensor]) -> list[Float[Tensor, "B C _ _"]]:
        """The maps of all L levels, with `width` channels each."""
        levels = [layer(values) for layer, values in zip(self.projections, maps, strict=False)]
        source = maps[-1]
        for layer in self.projections[len(maps):]:
            source = layer(source)
            levels.append(source)
        return levels


class SingleMap(nn.Module):
    """The backbone's last map alone, projected to `position.width` channels (DETR, arXiv 2005.12872, section 3.2)."""

    def __init__(self, channels: int, position: MapPosition) -> None:
        super().__init__()
        self.position = position
        self.projection = nn.Conv2d(channels, position.width, kernel_size=1)

    @property
    def projections(self) -> list[nn.Conv2d]:
        """As `PyramidBuilder` has them: one for each level."""
        return [self.projection]

    def forward(self, features: Features) -> Pyramid:
        level = self.projection(features.maps[-1])
        padding = resize_padding(features.padding, level.shape[-2:])
        precise = torch.promote_types(level.dtype, torch.float32)
        return Pyramid(
            tokens=flatten([level]),
            position=flatten([self.position(padding, precise)]).to(self.projection.weight.dtype),
            padding=padding.flatten(1),
            level_shapes=((level.shape[2], level.shape[3]),),
            valid_ratios=valid_ratio(padding)[:, None].to(precise),
            is_padded=features.is_padded)


class GroupNorm(nn.GroupNorm):
    """torch's, which also accepts groups of one value: a 1 x 1 map comes from a small image and is no mistake."""

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
    """The padding of the images resized to a map's (height, width), by nearest neighbour."""
    rows, columns = (nearest_places(length, original, padding.device)
                     for length, original in zip(size, padding.shape[1:], strict=True))
    return padding[:, rows][:, :, columns]


def nearest_places(length: int, original: int, device: torch.device) -> Int64[Tensor, "length"]:
    """For each of `length` pixels, that of `original` which `F.interpolate` takes.

    Written out with its roundings in float32, since other runtimes round a resizing differently: at the edge of the
    padding that decides whether a token is seen.
    """
    places = torch.arange(length, dtype=torch.float32, device=device)
    scale = places.new_full((1,), original) / places.new_full((1,), length)
    return (places * scale).long().clamp(max=original - 1)


def valid_ratio(padding: Bool[Tensor, "B H W"]) -> Float[Tensor, "B 2"]:
    """The unpadded share of a map's width and height."""
    height = (~padding[:, :, 0]).float().mean(1)
    width = (~padding[:, 0, :]).float().mean(1)
    return torch.stack([width, height], dim=-1)


def token_centres(pyramid: Pyramid) -> Float[Tensor, "B N 2"]:
    """The centre of every token, x and y in [0, 1] of the unpadded image; beyond 1 in the padding."""
    centres = []
    for level, (height, width) in enumerate(pyramid.level_shapes):
        y, x = torch.meshgrid(centre_line(height, pyramid.valid_ratios),
                              centre_line(width, pyramid.valid_ratios), indexing="ij")
        places = torch.stack([x.flatten(), y.flatten()], dim=-1)
        ratios = pyramid.valid_ratios[:, None, level]
        # A tensor made from the two numbers would be copied from the host, and a GPU would have to wait for it.
        extent = torch.stack([ratios[..., 0] * width, ratios[..., 1] * height], dim=-1)
        centres.append(places / extent)
    return torch.cat(centres, dim=1)


def centre_line(length: int, like: Tensor) -> Float[Tensor, "length"]:
    """Pixel centres 0.5, 1.5, ... along a line of `length` pixels, with the dtype and device of `like`."""
    return torch.arange(length, dtype=like.dtype, device=like.device) + 0.5
