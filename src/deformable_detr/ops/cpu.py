"""The op on the CPU: prepare arguments for the kernels of `cpu_kernels.py`, and convert their results.

The kernels do not distinguish the two ops. Both have offsets, counted from a position in a unit (its frame), and
logits, which without a softmax are the weights themselves.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from deformable_detr.ops.cpu_kernels import FORWARD_TILE, backward_kernel, forward_kernel
from deformable_detr.ops.reference import at_least_float32, level_extents, offset_frames
from deformable_detr.ops.threads import run_tasks


def forward(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The output (B, Q, M * D) in the dtype of `value`; arguments as in `library.ms_deform_attn`."""
    frames = _location_frames(level_sizes, locations)
    return _forward(value, level_sizes, frames, locations, weights.flatten(3), softmax=False)[0]


def backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, each in the shape and dtype of what it belongs to."""
    frames = _location_frames(level_sizes, locations)
    nothing = torch.zeros(weights.shape[:3], dtype=at_least_float32(value).dtype)
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
        exp(logits): the backward computes the weights from it and the logits.
    """
    frames = _reference_frames(level_sizes, reference, offsets.shape[4])
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
    """The gradients of `value`, positions and `logits`, from the inputs and outputs of `fused_forward`.

    Positions are x and y in pixels of the level: their gradient is (B, Q, M, L, P, 2), in float32 at least.
    """
    frames = _reference_frames(level_sizes, reference, offsets.shape[4])
    by_head = [at_least_float32(tensor).unflatten(2, value.shape[2:]) for tensor in (output, grad_output)]
    means = torch.linalg.vecdot(*by_head)
    return _backward(grad_output, value, level_sizes, frames, offsets, logits, log_sums, means, softmax=True)


def _shapes(level_sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(height, width) of each level."""
    return tuple(zip(level_sizes[::2], level_sizes[1::2], strict=True))


def _levels(level_sizes: Sequence[int], dtype: torch.dtype) -> np.ndarray:
    """(L, 3): height, width and first token, as integers of the same width as the numbers."""
    shapes = np.array(_shapes(level_sizes), dtype=np.int32 if dtype == torch.float32 else np.int64)
    areas = shapes.prod(axis=1)
    return np.column_stack((shapes, np.cumsum(areas) - areas)).astype(shapes.dtype)


def _location_frames(level_sizes: Sequence[int], locations: Tensor) -> Tensor:
    """(B, Q, L, 4) in float64: locations count from half a pixel before the first, in widths and heights."""
    B, Q, _, L, _, _ = locations.shape
    extents = level_extents(_shapes(level_sizes), locations.new_empty(0, dtype=torch.float64))
    return torch.cat((torch.full_like(extents, -0.5), extents), dim=-1).expand(B, Q, L, 4)


def _reference_frames(level_sizes: Sequence[int], reference: Tensor, num_points: int) -> Tensor:
    """(B, Q, L, 4) in float64: offsets count from the reference, in pixels or in 1 / P of half a box."""
    return torch.cat(offset_frames(reference.detach(), _shapes(level_sizes), num_points), dim=-1)


def _forward(
    value: Tensor, level_sizes: Sequence[int], frames: Tensor, offsets: Tensor, logits: Tensor, *, softmax: bool
) -> tuple[Tensor, Tensor]:
    B, Q, M, _ = logits.shape
    D, P, dtype = value.shape[3], offsets.shape[4], at_least_float32(value).dtype
    output, log_sums = torch.empty((B, Q, M, D), dtype=dtype), torch.empty((B, Q, M), dtype=dtype)
    num_chunks = _num_chunks(B * M, Q)
    run_tasks(
        forward_kernel(D, P, dtype), B * M * num_chunks,
        _levels(level_sizes, dtype), *_arrays(frames, offsets.flatten(3), logits), softmax, *_arrays(value),
        num_chunks, *_arrays(output, log_sums))
    return output.flatten(2).to(value.dtype), log_sums


def _num_chunks(num_heads: int, num_queries: int) -> int:
    """The number of parts to divide the queries into, so that there is work for every thread."""
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
    B, _, M, D = value.shape
    L, P = offsets.shape[3:5]
    dtype = at_least_float32(value).dtype
    grad_value, grad_positions, grad_logits = (
        torch.empty(tensor.shape, dtype=dtype) for tensor in (value, offsets, logits))
    run_tasks(
        backward_kernel(D, P, dtype), B * M * L,
        _levels(level_sizes, dtype), *_arrays(frames, offsets.flatten(3), logits), softmax,
        *_arrays(log_sums, means, grad_output.unflatten(2, (M, D)), value,
                 grad_value, grad_positions.flatten(3), grad_logits))
    return grad_value.to(value.dtype), grad_positions, grad_logits.to(logits.dtype)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """The tensors as C-contiguous arrays; a strided or half precision tensor is copied."""
    return [at_least_float32(tensor.detach()).contiguous().numpy() for tensor in tensors]
