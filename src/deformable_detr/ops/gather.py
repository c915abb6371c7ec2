"""The op for export: gathers alone, no `grid_sample`, no tensor above rank 5, no float64 that was not given.

It is plain PyTorch, differentiable by autograd, for runtimes that sample no grid or compute in float32 only. x and y
travel as tensors of their own, as both in one would need a sixth axis.
"""

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from deformable_detr.ops.reference import LevelShapes, at_least_float32


def gather_ms_deform_attn(
    value: Tensor, level_shapes: LevelShapes, x: Tensor, y: Tensor, weights: Tensor
) -> Tensor:
    """The weighted sum of bilinear samples, corner by corner: a corner is one row of `value` for each point.

    A corner off the map has a share of 0 times a pixel at the edge.

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
    rows = at_least_float32(value).reshape(B * N * M, D)
    weights = at_least_float32(weights)
    heights, widths = ([shape[axis] for shape in level_shapes] for axis in (0, 1))
    starts = _column([0, *accumulate(height * width for height, width in level_shapes)][:-1], torch.int64, x)
    first_tokens = starts + N * torch.arange(B, device=x.device).view(B, 1, 1, 1, 1)
    heads = torch.arange(M, device=x.device).view(M, 1, 1)
    row_length = _column(widths, torch.int64, x)

    output = rows.new_zeros(())
    columns = list(_neighbours(x, _column(widths, x.dtype, x)))
    for row, share_of_row in _neighbours(y, _column(heights, x.dtype, x)):
        for column, share_of_column in columns:
            index = (first_tokens + row * row_length + column) * M + heads
            corner = rows.index_select(0, index.flatten()).view(B, Q, M, L * P, D)
            share = (share_of_row * share_of_column * weights).view(B, Q, M, L * P, 1)
            output = output + (corner * share).sum(dim=3)
    return output.flatten(2).to(value.dtype)


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
    heights, widths = ([shape[axis] for shape in level_shapes] for axis in (0, 1))
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
    pixels = []
    for axis in (0, 1):
        sizes = _column([shape[1 - axis] for shape in level_shapes], reference.dtype, reference)
        start = reference[:, :, None, :, axis, None] * sizes - 0.5
        shifts = offsets[..., axis::2].unflatten(-1, (L, -1))
        if reference.shape[-1] == 4:
            shifts = _product(shifts, reference[:, :, None, :, 2 + axis, None] * sizes * (0.5 / shifts.shape[-1]))
        pixels.append(start + shifts)
    return pixels[0], pixels[1]


def _product(offsets: Tensor, units: Tensor) -> Tensor:
    """Offsets times their units; NaN where either is not finite, which then gets a zero gradient, not NaN."""
    is_finite = (offsets.abs() < torch.inf) & (units.abs() < torch.inf)
    return torch.where(is_finite, torch.where(is_finite, offsets, 0) * torch.where(is_finite, units, 0), torch.nan)


def _column(numbers: list[int], dtype: torch.dtype, like: Tensor) -> Tensor:
    """(L, 1), a number for each level."""
    # Filled on the device: a copy from the host would make a GPU wait. Under export a number may be symbolic.
    return torch.cat([torch.full((1, 1), number, dtype=dtype, device=like.device) for number in numbers])
