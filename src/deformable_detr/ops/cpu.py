"""The op on the CPU: Numba kernels, forward and backward.

With NUMBA_DISABLE_JIT=1 in the environment the same source runs as ordinary Python, and a debugger can enter it.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, no_type_check

import numba
import numpy as np
import torch
from numba.core import event
from torch import Tensor

from deformable_detr.ops.reference import at_least_float32

_log = logging.getLogger(__name__)
_one_launch = threading.Lock()


def forward(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The output (B, Q, M * D) in the dtype of `value`; arguments as in `library.ms_deform_attn`."""
    B, _, M, D = value.shape
    Q = locations.shape[1]
    output = value.new_empty((B, Q, M, D), dtype=at_least_float32(value).dtype)
    with _torch_threads():
        _forward(*_levels(level_sizes), *_arrays(value, locations, weights, output))
    return output.flatten(2).to(value.dtype)


def backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, each in the shape and dtype of what it belongs to."""
    grad_output = grad_output.unflatten(2, value.shape[2:])
    inputs = (value, locations, weights)
    gradients = [tensor.new_zeros(tensor.shape, dtype=at_least_float32(tensor).dtype) for tensor in inputs]
    with _torch_threads():
        _backward(*_levels(level_sizes), *_arrays(grad_output, *inputs, *gradients))
    grad_value, grad_locations, grad_weights = (
        gradient.to(tensor.dtype) for gradient, tensor in zip(gradients, inputs, strict=True)
    )
    return grad_value, grad_locations, grad_weights


def _levels(level_sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The shapes (L, 2) as height and width, and the first token of each level (L,)."""
    shapes = np.array(level_sizes, dtype=np.int64).reshape(-1, 2)
    areas = shapes.prod(axis=1)
    return shapes, np.cumsum(areas) - areas


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """The memory of the tensors as C-contiguous arrays: copies where a tensor is strided or of half precision."""
    return [at_least_float32(tensor.detach()).contiguous().numpy() for tensor in tensors]


@contextmanager
def _torch_threads() -> Iterator[None]:
    """Launch kernels on as many threads as torch uses, and leave the caller's Numba setting as it was."""
    before = numba.get_num_threads()
    with _launch_guard():
        numba.set_num_threads(max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)))
        try:
            yield
        finally:
            numba.set_num_threads(before)


def _launch_guard() -> Any:
    """A lock where two launches at once would go wrong: in Numba's own layer of threads, or before one is chosen."""
    try:
        layer = numba.threading_layer()
    except ValueError:  # nothing has been launched yet
        return _one_launch
    return _one_launch if layer == "workqueue" else nullcontext()


def _compiled(**options: Any) -> Callable[[Callable], Callable]:
    """`numba.njit` with the options of this file, and a cache on disk where there is a folder for it."""
    # "contract" allows fused multiply-adds and "reassoc" sums in vector lanes; NaN and infinity keep their meaning.
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}, **options}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's can be written
            _log.info(
                "nowhere to cache compiled kernels: set NUMBA_CACHE_DIR to save compiling in each process"
            )
            return numba.njit(**options)(function)

    return decorate


class _CompilationMessage(event.Listener):
    """Says in the log why a first call takes seconds."""

    def on_start(self, event: Any) -> None:
        if event.data["dispatcher"] in (_forward, _backward):
            _log.info("compiling deformable attention for this CPU; the first time takes some seconds")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _CompilationMessage())


# `no_type_check` keeps run-time type checkers, as in the tests, from wrapping what Numba compiles.
@_compiled()
@no_type_check
def _neighbours(position, size):
    """The two pixels around a position in (-1, size) along one axis.

    Returns their indices, their shares of the sample, and the derivatives of these shares by the position. A pixel
    outside the map has no share, and the index of the one inside: reading it is harmless, and needs no branch.
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


@_compiled(parallel=True)
@no_type_check
def _forward(level_shapes, level_starts, value, locations, weights, output):
    """Fill `output` (B, Q, M, D). A task is one query of one picture."""
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
                    weight = weights[b, q, m, level, p]
                    top_left = value[b, start + top * width + left, m]
                    top_right = value[b, start + top * width + right, m]
                    bottom_left = value[b, start + bottom * width + left, m]
                    bottom_right = value[b, start + bottom * width + right, m]
                    top_left_weight = number(weight * top_share * left_share)
                    top_right_weight = number(weight * top_share * right_share)
                    bottom_left_weight = number(weight * bottom_share * left_share)
                    bottom_right_weight = number(weight * bottom_share * right_share)
                    for channel in range(sums.size):
                        sums[channel] += (
                            top_left_weight * top_left[channel]
                            + top_right_weight * top_right[channel]
                            + bottom_left_weight * bottom_left[channel]
                            + bottom_right_weight * bottom_right[channel]
                        )


@_compiled(parallel=True)
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
    """Add to the gradients, which come as zeros.

    A task is one level of one head of one picture: no other task writes to its part of `grad_value`, and it goes
    through the queries in order. So the sums are the same bit for bit at any number of threads.
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
                weight = weights[b, q, m, level, p]

                top_left = start + top * width + left
                top_right = start + top * width + right
                bottom_left = start + bottom * width + left
                bottom_right = start + bottom * width + right
                top_left_dot = _dot(value[b, top_left, m], grad)
                top_right_dot = _dot(value[b, top_right, m], grad)
                bottom_left_dot = _dot(value[b, bottom_left, m], grad)
                bottom_right_dot = _dot(value[b, bottom_right, m], grad)
                top_dot = left_share * top_left_dot + right_share * top_right_dot
                bottom_dot = left_share * bottom_left_dot + right_share * bottom_right_dot
                left_dot = top_share * top_left_dot + bottom_share * bottom_left_dot
                right_dot = top_share * top_right_dot + bottom_share * bottom_right_dot
                grad_weights[b, q, m, level, p] = top_share * top_dot + bottom_share * bottom_dot
                grad_locations[b, q, m, level, p, 0] = (
                    weight * width * (left_slope * left_dot + right_slope * right_dot)
                )
                grad_locations[b, q, m, level, p, 1] = (
                    weight * height * (top_slope * top_dot + bottom_slope * bottom_dot)
                )

                _add(grad_value[b, top_left, m], number(weight * top_share * left_share), grad)
                _add(grad_value[b, top_right, m], number(weight * top_share * right_share), grad)
                _add(grad_value[b, bottom_left, m], number(weight * bottom_share * left_share), grad)
                _add(grad_value[b, bottom_right, m], number(weight * bottom_share * right_share), grad)


@_compiled()
@no_type_check
def _dot(row, other):
    """The sum of products of two rows of channels."""
    total = row.dtype.type(0)
    for channel in range(row.size):
        total += row[channel] * other[channel]
    return total


@_compiled()
@no_type_check
def _add(row, factor, other):
    """row += factor * other, in place."""
    for channel in range(row.size):
        row[channel] += factor * other[channel]
