"""The op on the CPU: Numba kernels, forward and backward; README.md has the formulas.

With NUMBA_DISABLE_JIT=1 in the environment the same source runs as ordinary Python: a debugger can enter it.
"""

from collections.abc import Sequence
from typing import no_type_check

import numba
import numpy as np
from torch import Tensor

from deformable_detr.ops.numba_setup import compiled, torch_threads
from deformable_detr.ops.reference import at_least_float32

# "contract" allows fused multiply-adds, "reassoc" sums in vector lanes; NaN and infinity keep their meaning.
# The options stand here because Numba renews its cache when the file of a kernel changes, and only then.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
_kernel = compiled(parallel=True, **_OPTIONS)
_part_of_kernel = compiled(parallel=False, **_OPTIONS)


def forward(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The output (B, Q, M * D) in the dtype of `value`; arguments as in `library.ms_deform_attn`."""
    B, _, M, D = value.shape
    Q = locations.shape[1]
    output = value.new_empty((B, Q, M, D), dtype=at_least_float32(value).dtype)
    with torch_threads():
        _forward(*_levels(level_sizes), *_arrays(value, locations, weights), output.numpy())
    return output.flatten(2).to(value.dtype)


def backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, each in the shape and dtype of what it belongs to."""
    grad_output = grad_output.unflatten(2, value.shape[2:])
    # Heads before tokens: the rows of one head lie side by side, which a task that owns a head gains from.
    inputs = (value.transpose(1, 2), locations, weights)
    gradients = [tensor.new_zeros(tensor.shape, dtype=at_least_float32(tensor).dtype) for tensor in inputs]
    grad_value, grad_locations, grad_weights = gradients
    with torch_threads():
        _backward(
            *_levels(level_sizes),
            *_arrays(grad_output, *inputs),
            *(gradient.numpy() for gradient in gradients),
        )
    return (
        grad_value.transpose(1, 2).contiguous().to(value.dtype),
        grad_locations.to(locations.dtype),
        grad_weights.to(weights.dtype),
    )


def _levels(level_sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The shapes (L, 2), height and width, and the first token of each level (L,)."""
    shapes = np.array(level_sizes, dtype=np.int64).reshape(-1, 2)
    areas = shapes.prod(axis=1)
    return shapes, np.cumsum(areas) - areas


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """The tensors as C-contiguous arrays; a tensor that is strided or of half precision is copied."""
    return [at_least_float32(tensor.detach()).contiguous().numpy() for tensor in tensors]


# `no_type_check` keeps run-time type checkers, as in the tests, from wrapping what Numba compiles.
@_part_of_kernel
@no_type_check
def _neighbours(position, size):
    """The two pixels around a position in (-1, size) along one axis.

    Returns their indices, their shares of the sample, and the derivatives of the shares by the position. A
    pixel outside the map has no share, and the index of the one inside: reading that needs no branch.
    """
    first = int(np.floor(position))
    second = first + 1
    second_share = position - first
    first_share = 1 - second_share
    first_slope, second_slope = -1.0, 1.0
    if first < 0:
        first, first_share, first_slope = 0, 0.0, 0.0
    if second >= size:
        second, second_share, second_slope = size - 1, 0.0, 0.0
    return first, second, first_share, second_share, first_slope, second_slope


@_kernel
@no_type_check
def _forward(level_shapes, level_starts, value, locations, weights, output):
    """Fill `output` (B, Q, M, D) from `value` (B, N, M, D). A task is one query of one picture."""
    B, Q, M, L, P, _ = locations.shape
    number = value.dtype.type
    for task in numba.prange(B * Q):
        b, q = task // Q, task % Q
        for m in range(M):
            sums = output[b, q, m]
            sums[:] = 0
            for level in range(L):
                height, width = level_shapes[level]
                start = level_starts[level]
                for p in range(P):
                    x = locations[b, q, m, level, p, 0] * width - 0.5
                    y = locations[b, q, m, level, p, 1] * height - 0.5
                    if not (-1 < x < width and -1 < y < height):  # also where x or y is NaN
                        continue
                    left, right, left_share, right_share, _, _ = _neighbours(x, width)
                    top, bottom, top_share, bottom_share, _, _ = _neighbours(y, height)
                    top_left = value[b, start + top * width + left, m]
                    top_right = value[b, start + top * width + right, m]
                    bottom_left = value[b, start + bottom * width + left, m]
                    bottom_right = value[b, start + bottom * width + right, m]
                    weight = weights[b, q, m, level, p]
                    top_left_factor = number(weight * top_share * left_share)
                    top_right_factor = number(weight * top_share * right_share)
                    bottom_left_factor = number(weight * bottom_share * left_share)
                    bottom_right_factor = number(weight * bottom_share * right_share)
                    for channel in range(sums.size):
                        sums[channel] += (
                            top_left_factor * top_left[channel]
                            + top_right_factor * top_right[channel]
                            + bottom_left_factor * bottom_left[channel]
                            + bottom_right_factor * bottom_right[channel]
                        )


@_kernel
@no_type_check
def _backward(
    level_shapes,
    level_starts,
    grad_output,
    value,
    locations,
    weights,
    grad_value,
    grad_locations,
    grad_weights,
):
    """Fill the gradients, which come as zeros; `value` and `grad_value` are (B, M, N, D).

    A task is one level of one head of one picture. No other task writes to its part of `grad_value`, and it
    takes the queries in their order: the sums are the same bit for bit at any number of threads.
    """
    B, Q, M, L, P, _ = locations.shape
    number = value.dtype.type
    for task in numba.prange(B * M * L):
        b, m, level = task // (M * L), task // L % M, task % L
        height, width = level_shapes[level]
        start = level_starts[level]
        for q in range(Q):
            grad = grad_output[b, q, m]
            for p in range(P):
                x = locations[b, q, m, level, p, 0] * width - 0.5
                y = locations[b, q, m, level, p, 1] * height - 0.5
                if not (-1 < x < width and -1 < y < height):  # also where x or y is NaN
                    continue
                left, right, left_share, right_share, left_slope, right_slope = _neighbours(x, width)
                top, bottom, top_share, bottom_share, top_slope, bottom_slope = _neighbours(y, height)
                top_left = start + top * width + left
                top_right = start + top * width + right
                bottom_left = start + bottom * width + left
                bottom_right = start + bottom * width + right

                top_left_dot, top_right_dot, bottom_left_dot, bottom_right_dot = _dot_products(
                    grad,
                    value[b, m, top_left],
                    value[b, m, top_right],
                    value[b, m, bottom_left],
                    value[b, m, bottom_right],
                )
                top_dot = left_share * top_left_dot + right_share * top_right_dot
                bottom_dot = left_share * bottom_left_dot + right_share * bottom_right_dot
                left_dot = top_share * top_left_dot + bottom_share * bottom_left_dot
                right_dot = top_share * top_right_dot + bottom_share * bottom_right_dot
                slope_x = left_slope * left_dot + right_slope * right_dot
                slope_y = top_slope * top_dot + bottom_slope * bottom_dot
                weight = weights[b, q, m, level, p]
                grad_weights[b, q, m, level, p] = top_share * top_dot + bottom_share * bottom_dot
                grad_locations[b, q, m, level, p, 0] = weight * width * slope_x
                grad_locations[b, q, m, level, p, 1] = weight * height * slope_y

                top_left_grad = grad_value[b, m, top_left]
                top_right_grad = grad_value[b, m, top_right]
                bottom_left_grad = grad_value[b, m, bottom_left]
                bottom_right_grad = grad_value[b, m, bottom_right]
                top_left_factor = number(weight * top_share * left_share)
                top_right_factor = number(weight * top_share * right_share)
                bottom_left_factor = number(weight * bottom_share * left_share)
                bottom_right_factor = number(weight * bottom_share * right_share)
                # One statement a row: at the edge of a map two of the rows are the same.
                for channel in range(grad.size):
                    top_left_grad[channel] += top_left_factor * grad[channel]
                    top_right_grad[channel] += top_right_factor * grad[channel]
                    bottom_left_grad[channel] += bottom_left_factor * grad[channel]
                    bottom_right_grad[channel] += bottom_right_factor * grad[channel]


@_part_of_kernel
@no_type_check
def _dot_products(grad, top_left, top_right, bottom_left, bottom_right):
    """The products of one row of channels with four others."""
    zero = grad.dtype.type(0)
    top_left_dot, top_right_dot, bottom_left_dot, bottom_right_dot = zero, zero, zero, zero
    for channel in range(grad.size):
        top_left_dot += grad[channel] * top_left[channel]
        top_right_dot += grad[channel] * top_right[channel]
        bottom_left_dot += grad[channel] * bottom_left[channel]
        bottom_right_dot += grad[channel] * bottom_right[channel]
    return top_left_dot, top_right_dot, bottom_left_dot, bottom_right_dot
