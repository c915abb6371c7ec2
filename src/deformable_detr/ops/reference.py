"""The definition of the op in plain PyTorch: any device, differentiable by autograd, exportable.

After it, the gradients of reference and offsets from those of the points' positions, for the kernels of the fused op.
"""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

LevelShapes = tuple[tuple[int, int], ...]


def reference_ms_deform_attn(value: Tensor, level_shapes: LevelShapes, positions: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of bilinear samples (Deformable DETR, arXiv 2010.04159, eq. 3), level by level.

    Args:
        value: (B, N, M, D).
        level_shapes: L pairs (height, width).
        positions: (B, Q, M, L, P, 2), x and y in pixels of the level, 0 at the centre of the first.
        weights: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D) in the dtype of `value`.
    """
    B, _, M, D = value.shape
    L, P = positions.shape[3:5]
    maps = at_least_float32(value).split([height * width for height, width in level_shapes], dim=1)
    # In long rows, and with the queries last: runtimes are slow where a short axis is the last.
    extents = level_extents(level_shapes, positions)[:, None].expand(L, P, 2).flatten()
    grids = _grid(positions.flatten(3), extents, maps[0].dtype).unflatten(3, (L, P, 2)).permute(3, 0, 2, 4, 1, 5)
    shares = at_least_float32(weights).permute(3, 0, 2, 4, 1)  # (L, B, M, P, Q)

    outputs = []
    for level, (height, width) in enumerate(level_shapes):
        feature_map = maps[level].permute(0, 2, 3, 1).reshape(B * M, D, height, width)
        grid = grids[level].flatten(0, 1)  # (B * M, P, Q, 2)
        samples = F.grid_sample(feature_map, grid, align_corners=False)  # (B * M, D, P, Q)
        outputs.append((samples * shares[level].flatten(0, 1)[:, None]).sum(dim=2))
    output = reduce(torch.add, outputs)
    return output.unflatten(0, (B, M)).permute(0, 3, 1, 2).flatten(2).to(value.dtype)


def _grid(positions: Tensor, extent: Tensor, dtype: torch.dtype) -> Tensor:
    """Positions as grid_sample wants them: -1 and 1 at the edges of a map of this extent, width or height.

    grid_sample turns them into pixels again, and rounds several times. A position so near to a pixel centre that this
    could move it across is first moved away from it, by the bound of these roundings: grid_sample then takes the slope
    on the right side.
    """
    # More than a pixel outside the map a sample is 0. So it is at -2 and a pixel beyond the other edge, where numbers
    # stay small.
    lowest, highest = torch.full_like(extent, -2.0), extent + 1
    if _values_alone():
        return ((2 * positions.clamp(lowest, highest) + 1) / extent - 1).to(dtype)
    # grid_sample would make NaN of a NaN; of -2 it makes zeros and passes no gradient.
    positions = positions.nan_to_num(nan=-2.0).clamp(lowest, highest)
    grid = (2 * positions + 1) / extent - 1
    rounded = grid.to(dtype)
    is_exact = (rounded == grid) & ((rounded + 1) * extent.to(dtype) - 1 == 2 * positions)

    # Half a unit in the last place of the grid, of grid + 1 and of two numbers as large as the position.
    from_edge = positions + 0.5
    bound = torch.finfo(dtype).eps / 2 * ((from_edge - extent / 2).abs() + 3 * from_edge.abs())
    before = positions.floor()
    moved = before + (positions - before).clamp(bound, 1 - bound)
    shift = torch.where(is_exact, 0, moved - positions).detach()
    return (grid + 2 * shift / extent).to(dtype)


def positions_of_locations(locations: Tensor, level_shapes: LevelShapes) -> Tensor:
    """Locations (B, Q, M, L, P, 2) in [0, 1] as positions in pixels of their level."""
    locations = exact(locations)
    return locations * level_extents(level_shapes, locations)[:, None] - 0.5


def positions_of_offsets(reference: Tensor, offsets: Tensor, level_shapes: LevelShapes) -> Tensor:
    """The positions (B, Q, M, L, P, 2) of the fused op's points, in pixels of their level.

    Args:
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes.
        offsets: (B, Q, M, L, P, 2): in pixels of the level from points, in 1 / P of half a box from boxes.
        level_shapes: L pairs (height, width).
    """
    L, P = offsets.shape[3:5]
    # In one row for each head: runtimes are slow where a short axis is the last.
    start, unit = (part[:, :, :, None].expand(-1, -1, L, P, 2).flatten(2)[:, :, None]
                   for part in offset_frames(reference, level_shapes, P))
    return _shifted(start, exact(offsets).flatten(3), unit).unflatten(3, (L, P, 2))


def _shifted(start: Tensor, offsets: Tensor, unit: Tensor) -> Tensor:
    """Offsets in their unit from where they start; NaN where either is not finite."""
    if _values_alone():
        return start + offsets * unit
    # An infinite or NaN factor would make NaN of the zero gradient that a position there gets.
    readable = offsets.isfinite() & unit.isfinite()
    shifts = torch.where(readable, offsets, 0) * torch.where(readable, unit, 0)
    return start + torch.where(readable, shifts, torch.nan)


def offset_frames(reference: Tensor, level_shapes: LevelShapes, num_points: int) -> tuple[Tensor, Tensor]:
    """The position from which the offsets around a reference count, and their unit: (B, Q, L, 2) each, in pixels."""
    reference = exact(reference)
    extents = level_extents(level_shapes, reference)
    start = reference[..., :2] * extents - 0.5
    if reference.shape[-1] == 2:
        return start, torch.ones_like(start)
    return start, reference[..., 2:] * extents * (0.5 / num_points)


def level_extents(level_shapes: LevelShapes, like: Tensor) -> Tensor:
    """(L, 2), width and height of each level, on the device and in the dtype of `like`."""
    # Filled on the device: a copy from the host would make a GPU wait.
    widths = torch.cat([like.new_full((1,), width) for _, width in level_shapes])
    heights = torch.cat([like.new_full((1,), height) for height, _ in level_shapes])
    return torch.stack((widths, heights), dim=-1)


def attention_weights(logits: Tensor, num_levels: int) -> Tensor:
    """Softmax over all levels and points of a head: (B, Q, M, L * P) to (B, Q, M, L, P), float32 at least."""
    return at_least_float32(logits).softmax(dim=-1).unflatten(-1, (num_levels, -1))


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32, anything wider as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def exact(tensor: Tensor) -> Tensor:
    """In float64, where a float32 location times the size of a map is not rounded; MPS has float32 only."""
    return tensor.float() if tensor.device.type == "mps" or _values_alone() else tensor.double()


def _values_alone() -> bool:
    """Whether a program without gradients is being exported.

    What keeps slopes on the right side of a pixel centre, and numbers that are not finite out of gradients, would be
    most of its time: other runtimes compute each step by itself.
    """
    return torch.compiler.is_exporting() and not torch.is_grad_enabled()


def gradients_of_offsets(
    grad_positions: Tensor, reference: Tensor, offsets: Tensor, level_shapes: LevelShapes
) -> Tensor:
    """The gradient of `offsets` (B, Q, M, L, P, 2) from that of the points' positions in pixels."""
    if reference.shape[-1] == 2:   # offsets from points are in pixels
        return grad_positions.to(offsets.dtype)
    extents = at_least_float32(reference)[..., 2:] * level_extents(level_shapes, grad_positions)
    units = extents[:, :, None, :, None] * (0.5 / offsets.shape[4])
    return _product(grad_positions, units).to(offsets.dtype)


def gradients_of_reference(
    grad_positions: Tensor, reference: Tensor, offsets: Tensor, level_shapes: LevelShapes
) -> Tensor:
    """The gradient of `reference` (B, Q, L, 2 or 4), to which all heads and points contribute."""
    grad_locations = grad_positions * level_extents(level_shapes, grad_positions)[:, None]
    gradient = grad_locations.sum(dim=(2, 4))
    if reference.shape[-1] == 4:
        shares = at_least_float32(offsets) * (0.5 / offsets.shape[4])
        gradient = torch.cat((gradient, _product(grad_locations, shares).sum(dim=(2, 4))), dim=-1)
    return gradient.to(reference.dtype)


def _product(gradient: Tensor, factor: Tensor) -> Tensor:
    """The product, zero where the gradient is, even if the factor is infinite."""
    return torch.where(gradient == 0, 0, gradient * factor)
