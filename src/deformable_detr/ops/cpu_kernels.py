"""The loops of the op on the CPU, compiled by Numba; README.md has the formulas.

With NUMBA_DISABLE_JIT=1 in the environment the same source runs as ordinary Python: a debugger can enter it.

A task first copies the channels of its head out of the maps, so that they are contiguous and stay in cache. Then it
works on tiles, a number of queries at a time, level by level: it computes the positions of all their points, in vectors
of points, and reads the rows of channels there, in vectors of channels. Each point reads four pixels of the map, even
those without a share, so that no loop over channels has a condition.

Numba counts a negative index from the end, and a loop that has to check the sign is not vectorised. So loops begin at
0, and computed indices are unsigned.
"""

import threading
from functools import cache
from typing import Any, no_type_check

import numpy as np
import torch
from numpy import uint64 as unsigned

from deformable_detr.ops.compilation import compiled, compiled_kernel

# "contract" allows fused multiply-adds, "reassoc" sums in vector lanes; NaN and infinity keep their meaning.
# The options are written here because Numba renews its cache only when the file of the kernel changes.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
# Only kernels call these: without a way to call them from Python they compile in half the time.
_part_of_kernel = compiled(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)
_inlined_part = compiled(inline="always", **_OPTIONS)   # so that a constant argument is constant inside

FORWARD_TILE = 128    # queries
BACKWARD_TILE = 64
SPECIAL_CHANNELS = (16, 32, 64)   # numbers of channels per head that have kernels of their own, in float32
SPECIAL_POINTS = 4                # and of points per level

# Rows of `floats` (rows, points), the scratch for one level; `places` (points,) goes with it.
FIRST_X, FIRST_Y = 0, 1   # column and row of the pixel to the upper left of a point, as numbers
REST_X, REST_Y = 2, 3     # distance of the point from it, 0 to 1
WEIGHT = 4
SHARES = 5   # four rows, for the pixels around a point: weight times the share of each
NUM_FORWARD_ROWS = 9
DOTS = 9     # four rows: the products of their channels with the gradient
GRAD_X, GRAD_Y, GRAD_WEIGHT = DOTS, DOTS + 1, DOTS + 2   # replace the products, once these are used
NUM_BACKWARD_ROWS = 13

# Arguments: first_task, end_task, levels, frames, offsets, logits, softmax, values, chunks, output, log_sums
_FORWARD_SIGNATURE = (
    "void(int64, int64, {integer}[:, ::1], float64[:, :, :, ::1], {number}[:, :, :, ::1], {number}[:, :, :, ::1], "
    "boolean, {number}[:, :, :, ::1], int64, {number}[:, :, :, ::1], {number}[:, :, ::1])")
# Arguments: first_task, end_task, levels, frames, offsets, logits, softmax, log_sums, means, grad_output, values,
# grad_values, grad_positions, grad_logits
_BACKWARD_SIGNATURE = (
    "void(int64, int64, {integer}[:, ::1], float64[:, :, :, ::1], {number}[:, :, :, ::1], {number}[:, :, :, ::1], "
    "boolean, {number}[:, :, ::1], {number}[:, :, ::1], {number}[:, :, :, ::1], {number}[:, :, :, ::1], "
    "{number}[:, :, :, ::1], {number}[:, :, :, ::1], {number}[:, :, :, ::1])")

_one_build_at_a_time = threading.Lock()


def forward_kernel(channels: int, points: int, dtype: torch.dtype) -> Any:
    """The forward kernel for this many channels per head and points per level, in numbers of this type."""
    with _one_build_at_a_time:
        return _build_forward(*_constants(channels, points, dtype), dtype)


def backward_kernel(channels: int, points: int, dtype: torch.dtype) -> Any:
    """The backward kernel for this many channels per head and points per level, in numbers of this type."""
    with _one_build_at_a_time:
        return _build_backward(*_constants(channels, points, dtype), dtype)


def _constants(channels: int, points: int, dtype: torch.dtype) -> tuple[int, int]:
    """Channels and points as constants of a kernel, which saves a fifth to a half of the time; 0 takes any number."""
    special = dtype == torch.float32
    return (channels if special and channels in SPECIAL_CHANNELS else 0,
            points if special and points == SPECIAL_POINTS else 0)


def _kernel(direction: str, signature: str, channels: int, points: int, dtype: torch.dtype) -> Any:
    """The decorator that compiles a kernel."""
    number, integer = ("float32", "int32") if dtype == torch.float32 else ("float64", "int64")
    sizes = f"{channels or 'any number of'} channels per head, {points or 'any number of'} points per level"
    name = f"{direction} kernel of deformable attention ({number}, {sizes})"
    symbol = f"{direction}_{number}_{channels or 'any'}_{points or 'any'}"
    return compiled_kernel(signature.format(number=number, integer=integer), name, symbol, **_OPTIONS)


# `no_type_check` keeps run-time type checkers, as in the tests, from wrapping what Numba compiles.


@cache
def _build_forward(special_channels: int, special_points: int, dtype: torch.dtype) -> Any:
    @_kernel("forward", _FORWARD_SIGNATURE, special_channels, special_points, dtype)
    @no_type_check
    def forward(first_task, end_task, levels, frames, offsets, logits, softmax, values, chunks, output, log_sums):
        """Fill a part of `output` (B, Q, M, D) and, where there is a softmax, of `log_sums` (B, Q, M).

        `levels` (L, 3) holds height, width and first token; `frames` (B, Q, L, 4) the pixel from which offsets count
        and their unit, x and y each; `offsets` is (B, Q, M, L * P * 2), `logits` (B, Q, M, L * P), weights as they are
        without `softmax`; `values` is (B, N, M, D). A task is a head of an image, for one of `chunks` of its queries.
        """
        _, Q, M, points = logits.shape
        L = len(levels)
        for task in range(first_task, end_task):
            b, m, chunk = task // (M * chunks), task // chunks % M, task % chunks
            P, channels = special_points or points // L, unsigned(special_channels or values.shape[3])
            rows = np.empty((values.shape[1] + 1) * values.shape[3], values.dtype)
            _gather(values, b, m, 0, values.shape[1], channels, rows)
            for first in range(chunk * Q // chunks, (chunk + 1) * Q // chunks, FORWARD_TILE):
                count = min(FORWARD_TILE, (chunk + 1) * Q // chunks - first)
                weights = np.empty((L, P * count), values.dtype)
                floats = np.empty((NUM_FORWARD_ROWS, P * count), values.dtype)
                places = np.empty(P * count, levels.dtype)
                positions = np.empty((2, P * count), np.float64)
                for level in range(L):
                    _load_weights(logits, b, first, count, m, level, P, weights[level])
                if softmax:
                    _softmax(weights, places, log_sums, b, first, count, m, P)
                _clear(output, b, first, count, m, channels)
                for level in range(L):
                    _copy(weights[level], floats[WEIGHT])
                    _load_positions(frames, offsets, b, first, count, m, level, P, positions, floats)
                    _place(levels[level], levels[level, 2], floats, places)
                    _read(levels[level], floats, places, rows, output, b, first, count, m, P, channels)

    return forward


@cache
def _build_backward(special_channels: int, special_points: int, dtype: torch.dtype) -> Any:
    @_kernel("backward", _BACKWARD_SIGNATURE, special_channels, special_points, dtype)
    @no_type_check
    def backward(first_task, end_task, levels, frames, offsets, logits, softmax, log_sums, means, grad_output, values,
                 grad_values, grad_positions, grad_logits):
        """Fill a part of the gradients of `values`, of positions in pixels, and of `logits`.

        `means` (B, Q, M) are the products of output and its gradient. A task is one level of one head of one image.
        No other task writes to its part of `grad_values`, and it takes the queries in their order: the sums are the
        same bit for bit at any number of threads.
        """
        _, Q, M, points = logits.shape
        L = len(levels)
        for task in range(first_task, end_task):
            b, m, level = task // (M * L), task // L % M, task % L
            P, channels = special_points or points // L, unsigned(special_channels or values.shape[3])
            first_token, size = levels[level, 2], levels[level, 0] * levels[level, 1]
            rows = np.empty((size + 1) * values.shape[3], values.dtype)
            grad_rows = np.zeros_like(rows)
            _gather(values, b, m, first_token, size, channels, rows)
            for first in range(0, Q, BACKWARD_TILE):
                count = min(BACKWARD_TILE, Q - first)
                floats = np.empty((NUM_BACKWARD_ROWS, P * count), values.dtype)
                places = np.empty(P * count, levels.dtype)
                positions = np.empty((2, P * count), np.float64)
                _load_weights(logits, b, first, count, m, level, P, floats[WEIGHT])
                if softmax:
                    _softmax_again(floats[WEIGHT], places, log_sums, b, first, count, m, P)
                _load_positions(frames, offsets, b, first, count, m, level, P, positions, floats)
                _place(levels[level], levels.dtype.type(0), floats, places)
                _scatter(levels[level], floats, places, grad_output, rows, grad_rows, b, first, count, m, P, channels)
                _slopes(levels[level], floats)
                _store(floats, softmax, means, grad_positions, grad_logits, b, first, count, m, level, P)
            _give_back(grad_rows, grad_values, b, m, first_token, size, channels)

    return backward


@_inlined_part
@no_type_check
def _gather(values, b, m, first_token, size, channels, rows):
    """Copy one head's channels of some tokens into `rows`, followed by zeros so that the last pixel has a neighbour."""
    for token in range(size):
        for channel in range(channels):
            rows[unsigned(token) * channels + channel] = values[b, unsigned(first_token + token), m, channel]
    for channel in range(channels):
        rows[unsigned(size) * channels + channel] = 0


@_inlined_part
@no_type_check
def _give_back(grad_rows, grad_values, b, m, first_token, size, channels):
    """Write the gradients of tokens to the place that `_gather` read their values from."""
    for token in range(size):
        for channel in range(channels):
            grad_values[b, unsigned(first_token + token), m, channel] = grad_rows[unsigned(token) * channels + channel]


@_inlined_part
@no_type_check
def _load_weights(logits, b, first, count, m, level, P, weights):
    """The logits of a tile's points of one level, query by query."""
    start = unsigned(level * P)
    for i in range(count):
        q, at = unsigned(first + i), unsigned(i * P)
        for p in range(unsigned(P)):
            weights[at + p] = logits[b, q, m, start + p]


@_inlined_part
@no_type_check
def _load_positions(frames, offsets, b, first, count, m, level, P, positions, floats):
    """FIRST and REST of a tile's points, from positions in float64: a float32 location times a size is exact there.

    Two loops, since the one that rounds becomes vectors only where its numbers are contiguous.
    """
    start = unsigned(level * P)
    for i in range(count):
        q, at = unsigned(first + i), unsigned(i * P)
        base_x, base_y = frames[b, q, level, 0], frames[b, q, level, 1]
        unit_x, unit_y = frames[b, q, level, 2], frames[b, q, level, 3]
        for p in range(unsigned(P)):
            positions[0, at + p] = base_x + unit_x * offsets[b, q, m, unsigned(2) * (start + p)]
            positions[1, at + p] = base_y + unit_y * offsets[b, q, m, unsigned(2) * (start + p) + unsigned(1)]
    for axis in range(2):
        for k in range(positions.shape[1]):
            before = np.floor(positions[axis, k])
            floats[FIRST_X + axis, k], floats[REST_X + axis, k] = before, positions[axis, k] - before


# Element by element: an assignment to a whole array costs seconds of compilation, for its error messages.


@_inlined_part
@no_type_check
def _copy(source, target):
    for k in range(source.size):
        target[k] = source[k]


@_inlined_part
@no_type_check
def _clear(output, b, first, count, m, channels):
    """Set the output of a tile to zero."""
    for i in range(count):
        q = unsigned(first + i)
        for channel in range(channels):
            output[b, q, m, channel] = 0


@_inlined_part
@no_type_check
def _softmax(weights, places, log_sums, b, first, count, m, P):
    """Replace `weights` by their softmax over all levels and points of a query; write the logarithms of the sums."""
    number = weights.dtype.type
    L, size = weights.shape
    highest, sums = np.empty(size, weights.dtype), np.zeros(size, weights.dtype)
    _find_highest(weights, count, P, highest)
    for level in range(L):
        for k in range(size):
            weights[level, k] -= highest[k]
        _exponentials(weights[level], places)
        for k in range(size):
            sums[k] += weights[level, k]
    for i in range(count):
        total = number(0)
        for p in range(P):
            total += sums[unsigned(i * P + p)]
        log_sums[b, first + i, m] = highest[unsigned(i * P)] + np.log(total)
        for p in range(P):
            sums[unsigned(i * P + p)] = number(1) / total
    for level in range(L):
        for k in range(size):
            weights[level, k] *= sums[k]


@_inlined_part
@no_type_check
def _find_highest(weights, count, P, highest):
    """The highest weight of each query, once for each of its points of a level."""
    _copy(weights[0], highest)
    for level in range(1, weights.shape[0]):
        for k in range(weights.shape[1]):
            highest[k] = weights[level, k] if weights[level, k] > highest[k] else highest[k]
    for i in range(count):
        most = highest[unsigned(i * P)]
        for p in range(1, P):
            most = highest[unsigned(i * P + p)] if highest[unsigned(i * P + p)] > most else most
        for p in range(P):
            highest[unsigned(i * P + p)] = most


@_inlined_part
@no_type_check
def _softmax_again(weights, powers, log_sums, b, first, count, m, P):
    """Compute the result of `_softmax` again, for one level."""
    for i in range(count):
        log_sum = log_sums[b, unsigned(first + i), m]
        for p in range(P):
            weights[unsigned(i * P + p)] -= log_sum
    _exponentials(weights, powers)


@_part_of_kernel
@no_type_check
def _exponentials(numbers, powers):
    """Replace `numbers` by their exponentials; `powers` is scratch, integers of the same width.

    exp(x) = 2**t exp(r), where t is the integer nearest to x / ln 2 and r the rest, at most ln 2 / 2. Two to an integer
    is set bit by bit, and a series gives exp(r). Calls of the library's exp would not be vectorised.
    """
    number, integer = numbers.dtype.type, powers.dtype.type
    limits = np.finfo(number)
    terms = 14 if limits.nmant > 30 else 8   # the first one left out is below half a bit
    one, half, log_of_two, log2_of_e = number(1), number(0.5), number(0.6931471805599453), number(1.4426950408889634)
    lowest = -log_of_two * number(limits.maxexp - 2)
    for k in range(numbers.size):
        x = numbers[k]
        x = lowest if x < lowest else x   # and NaN stays NaN
        t = np.floor(x * log2_of_e + half)
        rest = x - t * log_of_two
        powers[k] = (integer(t) + integer(limits.maxexp - 1)) << integer(limits.nmant)
        series = one
        for term in range(terms, 0, -1):
            series = one + series * rest * (one / number(term))
        numbers[k] = series
    factors = powers.view(numbers.dtype)
    for k in range(numbers.size):
        numbers[k] *= factors[k]


@_inlined_part
@no_type_check
def _pair(before, rest, extent):
    """Two neighbouring pixels along one axis, for a point `rest` after pixel `before`.

    Returns the index of the first, the shares of both, and the slopes of these shares. Where a pixel next to the point
    is off the map, the nearest two on the map are taken. Pixels that are not next to the point have no share.
    """
    number = type(before)
    zero, one = number(0), number(1)
    inside = (before >= -one) & (before < extent)   # and NaN is not
    before = before if inside else zero
    first = min(max(before, zero), max(extent - number(2), zero))
    between = inside & (before == first)
    is_first, is_second = inside & (before < first), inside & (before > first)   # the one pixel next to the point
    has_second = between & (extent > one)
    shares = (one - rest if between else (rest if is_first else zero),
              rest if has_second else (one - rest if is_second else zero))
    slopes = (-one if between else (one if is_first else zero),
              one if has_second else (-one if is_second else zero))
    return first, shares, slopes


@_part_of_kernel
@no_type_check
def _place(level, first, floats, places):
    """From FIRST, REST and WEIGHT: the upper left of the four pixels around each point, counted from the map's `first`,
    and the SHARES of all four."""
    number, integer = floats.dtype.type, places.dtype.type
    height, width = number(level[0]), number(level[1])
    for k in range(places.size):
        column, (left, right), _ = _pair(floats[FIRST_X, k], floats[REST_X, k], width)
        row, (top, bottom), _ = _pair(floats[FIRST_Y, k], floats[REST_Y, k], height)
        places[k] = integer(first) + integer(row) * level[1] + integer(column)
        top, bottom = top * floats[WEIGHT, k], bottom * floats[WEIGHT, k]
        floats[SHARES, k], floats[SHARES + 1, k] = top * left, top * right
        floats[SHARES + 2, k], floats[SHARES + 3, k] = bottom * left, bottom * right


@_inlined_part
@no_type_check
def _step_below(level, channels):
    """Distance from the channels of a pixel to those of the pixel below it; 0 on a map of one row."""
    return channels * unsigned(level[1] if level[0] > 1 else 0)


@_inlined_part
@no_type_check
def _point(floats, places, k, last, channels):
    """Index of the first channel of point k's upper left pixel, and the shares of the four; 0 after the last point."""
    counts = floats.dtype.type(k <= last)
    k = min(k, last)
    return (unsigned(places[k]) * channels, counts * floats[SHARES, k], counts * floats[SHARES + 1, k],
            counts * floats[SHARES + 2, k], counts * floats[SHARES + 3, k])


@_inlined_part
@no_type_check
def _read(level, floats, places, rows, output, b, first, count, m, P, channels):
    """Add the samples of a level's points, read from `rows`, to the output of each query."""
    right, below = channels, _step_below(level, channels)
    across = below + right
    for i in range(count):
        q, last = unsigned(first + i), unsigned((i + 1) * P - 1)
        for k in range(unsigned(i * P), last + unsigned(1), unsigned(2)):   # in pairs: half as many writes
            one, one_0, one_1, one_2, one_3 = _point(floats, places, k, last, channels)
            two, two_0, two_1, two_2, two_3 = _point(floats, places, k + unsigned(1), last, channels)
            for channel in range(channels):
                output[b, q, m, channel] += (
                    one_0 * rows[one + channel] + one_1 * rows[one + right + channel]
                    + one_2 * rows[one + below + channel] + one_3 * rows[one + across + channel]
                    + two_0 * rows[two + channel] + two_1 * rows[two + right + channel]
                    + two_2 * rows[two + below + channel] + two_3 * rows[two + across + channel])


@_inlined_part
@no_type_check
def _scatter(level, floats, places, grad_output, rows, grad_rows, b, first, count, m, P, channels):
    """Compute DOTS, the products of each point's four rows with the gradient, and add to the rows' gradients."""
    number = floats.dtype.type
    right, below = channels, _step_below(level, channels)
    for i in range(count):
        q = unsigned(first + i)
        for k in range(unsigned(i * P), unsigned((i + 1) * P)):
            top = unsigned(places[k]) * channels
            bottom = top + below
            dot_0, dot_1, dot_2, dot_3 = number(0), number(0), number(0), number(0)
            for channel in range(channels):
                grad = grad_output[b, q, m, channel]
                dot_0 += grad * rows[top + channel]
                dot_1 += grad * rows[top + right + channel]
                dot_2 += grad * rows[bottom + channel]
                dot_3 += grad * rows[bottom + right + channel]
            floats[DOTS, k], floats[DOTS + 1, k], floats[DOTS + 2, k], floats[DOTS + 3, k] = dot_0, dot_1, dot_2, dot_3
            share_0, share_1 = floats[SHARES, k], floats[SHARES + 1, k]
            share_2, share_3 = floats[SHARES + 2, k], floats[SHARES + 3, k]
            for channel in range(channels):
                grad = grad_output[b, q, m, channel]
                grad_rows[top + channel] += share_0 * grad
                grad_rows[top + right + channel] += share_1 * grad
                grad_rows[bottom + channel] += share_2 * grad
                grad_rows[bottom + right + channel] += share_3 * grad


@_part_of_kernel
@no_type_check
def _slopes(level, floats):
    """From the DOTS the gradients of position and weight: GRAD_X, GRAD_Y, GRAD_WEIGHT."""
    number = floats.dtype.type
    height, width = number(level[0]), number(level[1])
    for k in range(floats.shape[1]):
        _, (left, right), (left_slope, right_slope) = _pair(floats[FIRST_X, k], floats[REST_X, k], width)
        _, (top, bottom), (top_slope, bottom_slope) = _pair(floats[FIRST_Y, k], floats[REST_Y, k], height)
        on_left = top * floats[DOTS, k] + bottom * floats[DOTS + 2, k]
        on_right = top * floats[DOTS + 1, k] + bottom * floats[DOTS + 3, k]
        on_top = left * floats[DOTS, k] + right * floats[DOTS + 1, k]
        on_bottom = left * floats[DOTS + 2, k] + right * floats[DOTS + 3, k]
        floats[GRAD_X, k] = floats[WEIGHT, k] * (left_slope * on_left + right_slope * on_right)
        floats[GRAD_Y, k] = floats[WEIGHT, k] * (top_slope * on_top + bottom_slope * on_bottom)
        floats[GRAD_WEIGHT, k] = left * on_left + right * on_right


@_inlined_part
@no_type_check
def _store(floats, softmax, means, grad_positions, grad_logits, b, first, count, m, level, P):
    """Write the gradients of a tile's positions and logits."""
    for i in range(count):
        q = unsigned(first + i)
        mean = means[b, q, m]
        for p in range(P):
            at, point = unsigned(i * P + p), unsigned(level * P + p)
            grad_positions[b, q, m, unsigned(2) * point] = floats[GRAD_X, at]
            grad_positions[b, q, m, unsigned(2) * point + unsigned(1)] = floats[GRAD_Y, at]
            grad_weight = floats[GRAD_WEIGHT, at]
            grad_logits[b, q, m, point] = floats[WEIGHT, at] * (grad_weight - mean) if softmax else grad_weight
