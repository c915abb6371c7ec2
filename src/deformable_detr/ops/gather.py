"""The op for export: gathers alone, no `grid_sample`, no tensor above rank 5, no float64 that was not given.

It is plain PyTorch, differentiable by autograd, for runtimes that sample no grid or compute in float32 only. x and y
travel as tensors of their own, as both in one would need a sixth axis.
"""

from collections.abc import Iterator
from functools import reduce
from itertools import accumulate

import torch
from torch import Tensor

from deformable_detr.ops.reference import LevelShapes, at_least_float32


def gather_ms_deform_attn(
    value: Tensor, level_shapes: LevelShapes, x: Tensor, y: Tensor, weights: Tensor
) -> Tensor:
    """The weighted sum of bilinear samples: for each of the four corners of all points, one gather and one product.

    A corner off the map is a pixel at the edge with a share of 0.

    Args:
        value: (B, N, M, D).
        level_shapes: L pairs (height, width).
        x: (B, Q, M, L, P), in pixels of the level, 0 at the centre of the first.
        y: as x.
        weights: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D) in the dtype of `value`.
    """
    B, N, M, D = value.shape
    Q, L, P = x.shape[1], x.shape[3], x.shape[4]
    # All pixels of one head lie together: runtimes are quicker than where a pixel's heads do.
    rows = at_least_float32(value).transpose(1, 2).reshape(B * M * N, D)
    first_rows = N * torch.arange(B * M, device=x.device).view(B * M, 1, 1, 1)
    weights = _by_head(at_least_float32(weights))

    products = []
    for pixels, shares in _corners(_by_head(x), _by_head(y), level_shapes):
        corners = rows.index_select(0, (first_rows + pixels).flatten()).view(B * M * Q, L * P, D)
        products.append(_product((shares * weights).reshape(B * M * Q, 1, L * P), corners))
    output = reduce(torch.add, products)
    return output.view(B, M, Q, D).transpose(1, 2).flatten(2).to(value.dtype)


def _corners(x: Tensor, y: Tensor, level_shapes: LevelShapes) -> Iterator[tuple[Tensor, Tensor]]:
    """The four pixels around each point of (B * M, Q, L, P): which of the N it is, and its share of the sample."""
    heights, widths = _sizes(level_shapes)
    starts = [0, *accumulate(height * width for height, width in level_shapes)][:-1]
    first, row_length = _column(starts, torch.int64, x), _column(widths, torch.int64, x)
    columns = list(_neighbours(x, _column(widths, x.dtype, x)))
    for row, share_of_row in _neighbours(y, _column(heights, y.dtype, y)):
        for column, share_of_column in columns:
            yield first + row * row_length + column, share_of_row * share_of_column


def _by_head(tensor: Tensor) -> Tensor:
    """(B, Q, M, L, P) as (B * M, Q, L, P)."""
    return tensor.transpose(1, 2).flatten(0, 1)


def _product(shares: Tensor, corners: Tensor) -> Tensor:
    """The products of two stacks of matrices, in their own precision under autocast too."""
    device = shares.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return shares @ corners
    return shares @ corners     # without autocast's part in the graph that is exported


def _neighbours(positions: Tensor, sizes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The two pixels around each position along one axis: their indices, and their shares, 0 off the map.

    The index of a pixel off the map is that of the pixel at the edge.
    """
    # Moved to where nothing counts any more: what is further off, and NaN, which compares as False.
    positions = torch.where(positions >= -1, positions, -1)
    positions = torch.where(positions <= sizes, positions, sizes)
    before = positions.floor()
    for pixel, share in (before, before + 1 - positions), (before + 1, positions - before):
        on_map = pixel.clamp(min=0).minimum(sizes - 1)
        yield on_map.long(), torch.where(pixel == on_map, share, 0)


def pixels_of_locations(locations: Tensor, level_shapes: LevelShapes) -> tuple[Tensor, Tensor]:
    """Locations (B, Q, M, L, P, 2) in [0, 1] as x and y in pixels of their level, (B, Q, M, L, P) each."""
    x, y = at_least_float32(locations).unbind(-1)
    heights, widths = _sizes(level_shapes)
    return x * _column(widths, x.dtype, x) - 0.5, y * _column(heights, y.dtype, y) - 0.5


def pixels_of_offsets(reference: Tensor, offsets: Tensor, level_shapes: LevelShapes) -> tuple[Tensor, Tensor]:
    """The x and y of the fused op's points in pixels of their level, (B, Q, M, L, P) each.

    Args:
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes.
        offsets: (B, Q, M, L * P * 2): in pixels of the level from points, in 1 / P of half a box from boxes.
        level_shapes: L pairs (height, width).
    """
    L = len(level_shapes)
    reference, offsets = at_least_float32(reference), at_least_float32(offsets)
    heights, widths = _sizes(level_shapes)
    pixels = []
    for axis, numbers in enumerate((widths, heights)):
        sizes = _column(numbers, reference.dtype, reference)
        start = reference[:, :, None, :, axis, None] * sizes - 0.5
        shifts = offsets[..., axis::2].unflatten(-1, (L, -1))
        if reference.shape[-1] == 4:
            shifts = _scaled(shifts, reference[:, :, None, :, 2 + axis, None] * sizes * (0.5 / shifts.shape[-1]))
        pixels.append(start + shifts)
    return pixels[0], pixels[1]


def _scaled(offsets: Tensor, units: Tensor) -> Tensor:
    """Offsets times their units; NaN where either is not finite, which then gets a zero gradient, not NaN."""
    is_finite = (offsets.abs() < torch.inf) & (units.abs() < torch.inf)
    return torch.where(is_finite, torch.where(is_finite, offsets, 0) * torch.where(is_finite, units, 0), torch.nan)


def _sizes(level_shapes: LevelShapes) -> tuple[list[int], list[int]]:
    """The heights and the widths of the levels."""
    return [height for height, _ in level_shapes], [width for _, width in level_shapes]


def _column(numbers: list[int], dtype: torch.dtype, like: Tensor) -> Tensor:
    """(L, 1), a number for each level."""
    # Filled on the device: a copy from the host would make a GPU wait. Under export a number may be symbolic.
    return torch.cat([torch.full((1, 1), number, dtype=dtype, device=like.device) for number in numbers])
