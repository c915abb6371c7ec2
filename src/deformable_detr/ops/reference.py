"""The definition of the op in plain PyTorch: any device, differentiable by autograd, exportable.

Below it, what the fused op's gradients by position mean for reference and offsets.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def reference_ms_deform_attn(
    value: Tensor, level_shapes: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
) -> Tensor:
    """What `ms_deform_attn` means (Deformable DETR, arXiv 2010.04159, eq. 3), level by level.

    Args:
        value: (B, N, M, D).
        level_shapes: L pairs (height, width).
        locations: (B, Q, M, L, P, 2), x and y in [0, 1].
        weights: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D) in the dtype of `value`.
    """
    B, _, M, D = value.shape
    maps = at_least_float32(value).split([height * width for height, width in level_shapes], dim=1)
    # A sample more than half a pixel outside [0, 1] is zero. So it is at -1 and 2, where the numbers of the
    # pixels stay small. grid_sample would make NaN of a NaN; at -1 it reads zeros and passes no gradient.
    locations = at_least_float32(locations).nan_to_num(nan=-1.0).clamp(-1.0, 2.0)
    weights = at_least_float32(weights)

    samples = []
    for level, (height, width) in enumerate(level_shapes):
        feature_map = maps[level].permute(0, 2, 3, 1).reshape(B * M, D, height, width)
        points = locations[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (B * M, Q, P, 2)
        samples.append(F.grid_sample(feature_map, 2 * points - 1, align_corners=False))  # (B * M, D, Q, P)
    weights = weights.transpose(1, 2).flatten(0, 1).flatten(2)  # (B * M, Q, L * P)
    output = (torch.cat(samples, dim=-1) * weights[:, None]).sum(dim=-1)
    return output.unflatten(0, (B, M)).permute(0, 3, 1, 2).flatten(2).to(value.dtype)


def sampling_locations(
    reference: Tensor, offsets: Tensor, level_shapes: tuple[tuple[int, int], ...]
) -> Tensor:
    """Where the points lie: (B, Q, M, L, P, 2), x and y in [0, 1], in float32 at least.

    Args:
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes.
        offsets: (B, Q, M, L, P, 2): pixels of the level beside points, 1 / P of half a box beside boxes.
        level_shapes: L pairs (height, width).
    """
    reference = at_least_float32(reference)[:, :, None, :, None]  # (B, Q, 1, L, 1, 2 or 4)
    offsets = at_least_float32(offsets)
    if reference.shape[-1] == 4:
        # Infinity or NaN as a factor would make NaN of the zero gradient that a location there gets.
        centre, extents = reference[..., :2], reference[..., 2:]
        readable = offsets.isfinite() & extents.isfinite()
        shifts = torch.where(readable, offsets, 0) / offsets.shape[4] * torch.where(readable, extents, 0) * 0.5
        return centre + torch.where(readable, shifts, torch.nan)
    return reference + offsets / level_extents(level_shapes, offsets)[:, None]


def level_extents(level_shapes: tuple[tuple[int, int], ...], like: Tensor) -> Tensor:
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


def gradients_of_offsets(
    grad_positions: Tensor, reference: Tensor, offsets: Tensor, level_shapes: tuple[tuple[int, int], ...]
) -> Tensor:
    """The gradient of `offsets` (B, Q, M, L, P, 2) from that of the points' positions in pixels."""
    if reference.shape[-1] == 2:   # beside a point an offset is one in pixels
        return grad_positions.to(offsets.dtype)
    extents = at_least_float32(reference)[..., 2:] * level_extents(level_shapes, grad_positions)
    units = extents[:, :, None, :, None] * (0.5 / offsets.shape[4])
    return _product(grad_positions, units).to(offsets.dtype)


def gradients_of_reference(
    grad_positions: Tensor, reference: Tensor, offsets: Tensor, level_shapes: tuple[tuple[int, int], ...]
) -> Tensor:
    """The gradient of `reference` (B, Q, L, 2 or 4), to which all heads and points contribute."""
    grad_locations = grad_positions * level_extents(level_shapes, grad_positions)[:, None]
    gradient = grad_locations.sum(dim=(2, 4))
    if reference.shape[-1] == 4:
        shares = at_least_float32(offsets) * (0.5 / offsets.shape[4])
        gradient = torch.cat((gradient, _product(grad_locations, shares).sum(dim=(2, 4))), dim=-1)
    return gradient.to(reference.dtype)


def _product(gradient: Tensor, factor: Tensor) -> Tensor:
    """No gradient passes where none came, though the factor be infinite."""
    return torch.where(gradient == 0, 0, gradient * factor)
