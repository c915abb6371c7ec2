"""The op on the CPU: what goes into the kernels of `cpu_kernels.py`, and what comes out of them.

Both ops are one to the kernels. Each has offsets which count from a pixel in a unit (its frame), and logits, which are
weights already where there is no softmax.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from deformable_detr.ops.cpu_kernels import FORWARD_TILE, kernels_for
from deformable_detr.ops.numba_setup import torch_threads
from deformable_detr.ops.reference import at_least_float32, level_extents


def forward(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The output (B, Q, M * D) in the dtype of `value`; arguments as in `library.ms_deform_attn`."""
    frames = _location_frames(value, level_sizes, locations)
    return _forward(value, level_sizes, frames, locations, weights.flatten(3), softmax=False)[0]


def backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, each in the shape and dtype of what it belongs to."""
    frames = _location_frames(value, level_sizes, locations)
    nothing = torch.zeros(weights.shape[:3], dtype=frames.dtype)
    grad_value, grad_positions, grad_weights = _backward(
        grad_output, value, level_sizes, frames, locations, weights.flatten(3), nothing, nothing, softmax=False)
    grad_locations = grad_positions * level_extents(_shapes(level_sizes), grad_positions)[:, None]
    return grad_value, grad_locations.to(locations.dtype), grad_weights.view_as(weights)


def fused_forward(
    value: Tensor, level_sizes: Sequence[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Locations, softmax and samples in one pass; arguments as in `library.fused_ms_deform_attn`.

    Returns:
        The output (B, Q, M * D) in the dtype of `value`, and (B, Q, M), the logarithm of each head's sum of
        exp(logits): from it and a logit the backward has the weight again.
    """
    frames = _reference_frames(value, level_sizes, reference, offsets.shape[4])
    return _forward(value, level_sizes, frames, offsets, logits, softmax=True)


def fused_backward(
    grad_output: Tensor,
    value: Tensor,
    level_sizes: Sequence[int],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    output: Tensor,
    log_sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `value`, of the points' positions, and of `logits`, from what `fused_forward` took and gave.

    That of the positions is (B, Q, M, L, P, 2) in float32 at least, by x and y in pixels of the level.
    """
    frames = _reference_frames(value, level_sizes, reference, offsets.shape[4])
    by_head = [at_least_float32(tensor).unflatten(2, value.shape[2:]) for tensor in (output, grad_output)]
    means = torch.linalg.vecdot(*by_head)
    return _backward(grad_output, value, level_sizes, frames, offsets, logits, log_sums, means, softmax=True)


def _shapes(level_sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(height, width) of each level."""
    return tuple(zip(level_sizes[::2], level_sizes[1::2], strict=True))


def _levels(level_sizes: Sequence[int], dtype: torch.dtype) -> np.ndarray:
    """(L, 3): height, width and first token, as integers that are as wide as the numbers."""
    shapes = np.array(_shapes(level_sizes), dtype=np.int32 if dtype == torch.float32 else np.int64)
    areas = shapes.prod(axis=1)
    return np.column_stack((shapes, np.cumsum(areas) - areas)).astype(shapes.dtype)


def _location_frames(value: Tensor, level_sizes: Sequence[int], locations: Tensor) -> Tensor:
    """Locations count from the edge of the map, half a pixel before the first, in widths and heights."""
    B, Q, _, L, _, _ = locations.shape
    extents = level_extents(_shapes(level_sizes), at_least_float32(value))
    return torch.cat((torch.full_like(extents, -0.5), extents), dim=-1).expand(B, Q, L, 4)


def _reference_frames(value: Tensor, level_sizes: Sequence[int], reference: Tensor, num_points: int) -> Tensor:
    """Offsets count from the reference: beside a point in pixels, beside a box in 1 / P of its half."""
    extents = level_extents(_shapes(level_sizes), at_least_float32(value))
    reference = at_least_float32(reference.detach())
    frames = extents.new_ones((*reference.shape[:3], 4))
    frames[..., :2] = torch.addcmul(extents.new_tensor(-0.5), reference[..., :2], extents)
    if reference.shape[-1] == 4:
        frames[..., 2:] = reference[..., 2:] * extents * (0.5 / num_points)
    return frames


def _forward(
    value: Tensor, level_sizes: Sequence[int], frames: Tensor, offsets: Tensor, logits: Tensor, *, softmax: bool
) -> tuple[Tensor, Tensor]:
    B, Q, M, _ = logits.shape
    output = frames.new_empty((B, Q, M, value.shape[3]))
    log_sums = frames.new_empty((B, Q, M))
    kernel, _ = kernels_for(value.shape[3], offsets.shape[4], frames.dtype)
    with torch_threads():
        kernel(
            _levels(level_sizes, frames.dtype), *_arrays(frames, offsets.flatten(3), logits), softmax, *_arrays(value),
            _num_chunks(B * M, Q), *_arrays(output, log_sums))
    return output.flatten(2).to(value.dtype), log_sums


def _num_chunks(num_heads: int, num_queries: int) -> int:
    """Into how many parts to cut the queries, so that the heads of all images keep every thread at work."""
    wanted = -(-torch.get_num_threads() // max(1, num_heads))
    return max(1, min(wanted, num_queries // FORWARD_TILE))


def _backward(
    grad_output: Tensor,
    value: Tensor,
    level_sizes: Sequence[int],
    frames: Tensor,
    offsets: Tensor,
    logits: Tensor,
    log_sums: Tensor,
    means: Tensor,
    *,
    softmax: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, positions in pixels, and logits."""
    grad_value, grad_positions, grad_logits = (
        torch.empty(tensor.shape, dtype=frames.dtype) for tensor in (value, offsets, logits))
    _, kernel = kernels_for(value.shape[3], offsets.shape[4], frames.dtype)
    with torch_threads():
        kernel(
            _levels(level_sizes, frames.dtype), *_arrays(frames, offsets.flatten(3), logits), softmax,
            *_arrays(log_sums, means, grad_output.unflatten(2, value.shape[2:]), value,
                     grad_value, grad_positions.flatten(3), grad_logits))
    return grad_value.to(value.dtype), grad_positions, grad_logits.to(logits.dtype)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """The tensors as C-contiguous arrays; a tensor that is strided or of half precision is copied."""
    return [at_least_float32(tensor.detach()).contiguous().numpy() for tensor in tensors]
