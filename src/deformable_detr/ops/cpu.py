"""The op on the CPU: what goes into the kernels of `cpu_kernels.py`, and what comes out of them.

Both ops are one to the kernels. Each has offsets which count from a pixel in a unit (its frame), and logits, which are
weights already where there is no softmax.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deformable_detr.ops.cpu_kernels import kernels_for
from deformable_detr.ops.numba_setup import torch_threads
from deformable_detr.ops.reference import at_least_float32, level_extents

SUPPORTED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def forward(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The output (B, Q, M * D) in the dtype of `value`; arguments as in `library.ms_deform_attn`."""
    maps = _Maps.of(value, level_sizes)
    frames = _location_frames(maps, locations)
    return _forward(value, maps, frames, locations, weights.flatten(3), softmax=False)[0]


def backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, each in the shape and dtype of what it belongs to."""
    maps = _Maps.of(value, level_sizes)
    frames = _location_frames(maps, locations)
    nothing = torch.zeros(weights.shape[:3], dtype=maps.rows.dtype)
    grad_value, grad_positions, grad_weights = _backward(
        grad_output, value, maps, frames, locations, weights.flatten(3), nothing, nothing, softmax=False)
    grad_locations = grad_positions * level_extents(maps.shapes, grad_positions)[:, None]
    return grad_value, grad_locations.to(locations.dtype), grad_weights.view_as(weights)


def fused_forward(
    value: Tensor, level_sizes: Sequence[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Locations, softmax and samples in one pass; arguments as in `library.fused_ms_deform_attn`.

    Returns:
        The output (B, Q, M * D) in the dtype of `value`, and (B, Q, M), the logarithm of each head's sum of
        exp(logits): from it and a logit the backward has the weight again.
    """
    maps = _Maps.of(value, level_sizes)
    frames = _reference_frames(maps, reference, offsets.shape[4])
    return _forward(value, maps, frames, offsets, logits, softmax=True)


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
    maps = _Maps.of(value, level_sizes)
    frames = _reference_frames(maps, reference, offsets.shape[4])
    by_head = [at_least_float32(tensor).unflatten(2, value.shape[2:]) for tensor in (output, grad_output)]
    means = torch.linalg.vecdot(*by_head)
    return _backward(grad_output, value, maps, frames, offsets, logits, log_sums, means, softmax=True)


@dataclass(frozen=True)
class _Maps:
    """The feature maps as the kernels want them: heads first, so that the rows of one head lie side by side.

    Behind each map lies a row of zeros, so that every pixel has one to its right: `rows` is (B, M, N + L, D). `levels`
    (L, 3) holds height, width and first row, as integers that are as wide as the numbers.
    """

    rows: Tensor
    levels: np.ndarray

    @staticmethod
    def of(value: Tensor, level_sizes: Sequence[int]) -> "_Maps":
        B, N, M, D = value.shape
        dtype = at_least_float32(value).dtype
        shapes = np.array(level_sizes, dtype=np.int32 if dtype == torch.float32 else np.int64).reshape(-1, 2)
        sizes = shapes[:, 0] * shapes[:, 1] + 1
        levels = np.column_stack((shapes, np.cumsum(sizes) - sizes)).astype(shapes.dtype)
        maps = _Maps(torch.empty((B, M, N + len(levels), D), dtype=dtype), levels)
        maps.rows[:, :, levels[:, 2] + sizes - 1] = 0
        for rows, tokens in maps.beside(maps.rows, value.detach()):
            rows.copy_(tokens)
        return maps

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple((height, width) for height, width, _ in self.levels.tolist())

    def beside(self, rows: Tensor, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each level the same pixels (B, M, pixels, D) of `rows` and of (B, N, M, D)."""
        for level, (height, width, first) in enumerate(self.levels.tolist()):
            size = height * width
            yield rows[:, :, first:first + size], tokens[:, first - level:first - level + size].transpose(1, 2)


def _location_frames(maps: _Maps, locations: Tensor) -> Tensor:
    """Locations count from the edge of the map, half a pixel before the first, in widths and heights."""
    B, Q, _, L, _, _ = locations.shape
    extents = level_extents(maps.shapes, maps.rows)
    return torch.cat((torch.full_like(extents, -0.5), extents), dim=-1).expand(B, Q, L, 4)


def _reference_frames(maps: _Maps, reference: Tensor, num_points: int) -> Tensor:
    """Offsets count from the reference: beside a point in pixels, beside a box in 1 / P of its half."""
    extents = level_extents(maps.shapes, maps.rows)
    reference = at_least_float32(reference.detach())
    frames = maps.rows.new_ones((*reference.shape[:3], 4))
    frames[..., :2] = torch.addcmul(extents.new_tensor(-0.5), reference[..., :2], extents)
    if reference.shape[-1] == 4:
        frames[..., 2:] = reference[..., 2:] * extents * (0.5 / num_points)
    return frames


def _forward(
    value: Tensor, maps: _Maps, frames: Tensor, offsets: Tensor, logits: Tensor, *, softmax: bool
) -> tuple[Tensor, Tensor]:
    B, Q, M, _ = logits.shape
    output = maps.rows.new_empty((B, Q, M, value.shape[3]))
    log_sums = maps.rows.new_empty((B, Q, M))
    kernel, _ = kernels_for(value.shape[3], offsets.shape[4], maps.rows.numpy().dtype)
    with torch_threads():
        kernel(
            maps.levels, *_arrays(frames, offsets.flatten(3), logits), softmax,
            *_arrays(maps.rows, output, log_sums))
    return output.flatten(2).to(value.dtype), log_sums


def _backward(
    grad_output: Tensor,
    value: Tensor,
    maps: _Maps,
    frames: Tensor,
    offsets: Tensor,
    logits: Tensor,
    log_sums: Tensor,
    means: Tensor,
    *,
    softmax: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, positions in pixels, and logits."""
    grad_maps = torch.zeros_like(maps.rows)
    grad_positions = torch.empty(offsets.shape, dtype=maps.rows.dtype)
    grad_logits = torch.empty(logits.shape, dtype=maps.rows.dtype)
    _, kernel = kernels_for(value.shape[3], offsets.shape[4], maps.rows.numpy().dtype)
    with torch_threads():
        kernel(
            maps.levels, *_arrays(frames, offsets.flatten(3), logits), softmax,
            *_arrays(log_sums, means, grad_output.unflatten(2, value.shape[2:]), maps.rows,
                     grad_maps, grad_positions.flatten(3), grad_logits))
    grad_value = torch.empty(value.shape, dtype=value.dtype)
    for inner, tokens in maps.beside(grad_maps, grad_value):
        tokens.copy_(inner)
    return grad_value, grad_positions, grad_logits.to(logits.dtype)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """The tensors as C-contiguous arrays; a tensor that is strided or of half precision is copied."""
    return [at_least_float32(tensor.detach()).contiguous().numpy() for tensor in tensors]
