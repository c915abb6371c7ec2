"""The loops of the op on the CPU, compiled by Numba; README.md has the formulas.

With NUMBA_DISABLE_JIT=1 in the environment the same source runs as ordinary Python: a debugger can enter it.

A kernel works on a tile: some queries of one head. First it finds where all their points lie, in vectors of points;
then it reads the rows of channels there, in vectors of channels. What stands between the two, the scratch arrays, fits
into the first-level cache. Each map has a border of zeros, so that no point needs to ask what lies outside.

Numba counts a negative index from the end, and a loop that must ask for the sign does not become vectors. So loops
begin at 0, and an index that is computed is unsigned.
"""

from functools import cache
from typing import Any, no_type_check

import numba
import numpy as np
from numpy import uint64 as unsigned

from deformable_detr.ops.numba_setup import compiled

# "contract" allows fused multiply-adds, "reassoc" sums in vector lanes; NaN and infinity keep their meaning.
# The options stand here because Numba renews its cache when the file of a kernel changes, and only then.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
_kernel = compiled(parallel=True, **_OPTIONS)
# Only kernels call these: without a way to call them from Python they compile in half the time.
_part_of_kernel = compiled(parallel=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)
_inlined_part = compiled(parallel=False, inline="always", **_OPTIONS)   # so that a constant argument is one inside

FORWARD_TILE = 32     # queries, on all levels
BACKWARD_TILE = 64    # queries, on one level
SPECIAL_CHANNELS = (16, 32, 64)   # numbers of channels a head that have kernels of their own, in float32

# The scratch of a level: row of `floats` (NUM_FLOATS, points) and of `integers` (NUM_INTEGERS, points).
X, Y, WEIGHT = 0, 1, 2
TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = 3, 4, 5, 6   # weight times share of the four pixels around a point
DOTS = 7                                                      # their rows' products with the gradient, in this order
NUM_FLOATS = 11
TOP, BOTTOM = 0, 1                                            # the two left ones of these pixels
NUM_INTEGERS = 2


def kernels_for(channels: int, dtype: np.dtype) -> tuple[Any, Any]:
    """The forward and backward kernels for so many channels a head of this type."""
    return _build(channels if channels in SPECIAL_CHANNELS and dtype == np.float32 else 0)


@cache
def _build(special_channels: int) -> tuple[Any, Any]:
    """Kernels for this number of channels, a constant that saves a fifth to a half of the time; 0 takes any."""

    # `no_type_check` keeps run-time type checkers, as in the tests, from wrapping what Numba compiles.
    @_kernel
    @no_type_check
    def forward(levels, frames, offsets, logits, softmax, maps, output, log_sums):
        """Fill `output` (B, Q, M, D) and, where there is a softmax, `log_sums` (B, Q, M). A task is a tile.

        `levels` (L, 3) holds height, width and first row in `maps` (B, M, rows, D); `frames` (B, Q, L, 4) the pixel
        from which offsets count and their unit, x and y each; `offsets` is (B, Q, M, L * P * 2), `logits`
        (B, Q, M, L * P): weights as they are without `softmax`.
        """
        B, Q, M, points = logits.shape
        L = len(levels)
        channels = special_channels or output.shape[3]
        tiles = (Q + FORWARD_TILE - 1) // FORWARD_TILE
        for task in numba.prange(B * M * tiles):
            b, m, first = task // (M * tiles), task // tiles % M, task % tiles * FORWARD_TILE
            count = min(FORWARD_TILE, Q - first)
            floats = np.empty((L, NUM_FLOATS, points // L * count), maps.dtype)
            integers = np.empty((L, NUM_INTEGERS, points // L * count), levels.dtype)
            for level in range(L):
                _load(frames, offsets, logits, b, first, count, m, level, floats[level])
            if softmax:
                _softmax(floats, integers, log_sums, b, first, count, m)
            for level in range(L):
                _place(levels[level], floats[level], integers[level])
            _read(floats, integers, maps[b, m].reshape(-1), output, b, first, count, m, unsigned(channels))

    @_kernel
    @no_type_check
    def backward(levels, frames, offsets, logits, softmax, log_sums, means, grad_output, maps,
                 grad_maps, grad_positions, grad_logits):
        """Fill the gradients: of `maps`, which comes as zeros, of positions in pixels, and of `logits`.

        `means` (B, Q, M) are the products of output and its gradient. A task is one level of one head of one picture.
        No other task writes to its part of `grad_maps`, and it takes the queries in their order: the sums are the same
        bit for bit at any number of threads.
        """
        B, Q, M, points = logits.shape
        L = len(levels)
        channels = special_channels or maps.shape[3]
        for task in numba.prange(B * M * L):
            b, m, level = task // (M * L), task // L % M, task % L
            rows, grad_rows = maps[b, m].reshape(-1), grad_maps[b, m].reshape(-1)
            for first in range(0, Q, BACKWARD_TILE):
                count = min(BACKWARD_TILE, Q - first)
                floats = np.empty((NUM_FLOATS, points // L * count), maps.dtype)
                integers = np.empty((NUM_INTEGERS, points // L * count), levels.dtype)
                _load(frames, offsets, logits, b, first, count, m, level, floats)
                if softmax:
                    _softmax_again(floats, integers, log_sums, b, first, count, m)
                _place(levels[level], floats, integers)
                _scatter(floats, integers, grad_output, rows, grad_rows, b, first, count, m, unsigned(channels))
                _slopes(floats)
                _store(floats, softmax, means, grad_positions, grad_logits, b, first, count, m, level)

    return forward, backward


@_part_of_kernel
@no_type_check
def _load(frames, offsets, logits, b, first, count, m, level, floats):
    """X, Y (in pixels of the level) and WEIGHT of a tile's points, query by query."""
    P = floats.shape[1] // count
    xs, ys, weights = floats[X], floats[Y], floats[WEIGHT]
    start = unsigned(level * P)
    for i in range(count):
        q, at = unsigned(first + i), unsigned(i * P)
        base_x, base_y = frames[b, q, level, 0], frames[b, q, level, 1]
        unit_x, unit_y = frames[b, q, level, 2], frames[b, q, level, 3]
        for p in range(unsigned(P)):
            xs[at + p] = base_x + unit_x * offsets[b, q, m, unsigned(2) * (start + p)]
            ys[at + p] = base_y + unit_y * offsets[b, q, m, unsigned(2) * (start + p) + unsigned(1)]
            weights[at + p] = logits[b, q, m, start + p]


@_part_of_kernel
@no_type_check
def _softmax(floats, integers, log_sums, b, first, count, m):
    """WEIGHT becomes its softmax over all levels and points of a query; the logarithms of the sums go out."""
    number = floats.dtype.type
    L, _, size = floats.shape
    highest, sums = floats[0, TOP_LEFT], floats[0, TOP_RIGHT]   # free as yet
    _find_highest(floats, count, highest)
    sums[:] = number(0)
    for level in range(L):
        weights = floats[level, WEIGHT]
        for k in range(size):
            weights[k] -= highest[k]
        _exponentials(weights, integers[level, TOP])
        for k in range(size):
            sums[k] += weights[k]
    P = size // count
    for i in range(count):
        total = number(0)
        for p in range(P):
            total += sums[unsigned(i * P + p)]
        log_sums[b, first + i, m] = highest[unsigned(i * P)] + np.log(total)
        for p in range(P):
            sums[unsigned(i * P + p)] = number(1) / total
    for level in range(L):
        weights = floats[level, WEIGHT]
        for k in range(size):
            weights[k] *= sums[k]


@_part_of_kernel
@no_type_check
def _find_highest(floats, count, highest):
    """The highest WEIGHT of each query, once for each of its points of a level."""
    L, _, size = floats.shape
    highest[:] = floats[0, WEIGHT]
    for level in range(1, L):
        weights = floats[level, WEIGHT]
        for k in range(size):
            highest[k] = weights[k] if weights[k] > highest[k] else highest[k]
    P = size // count
    for i in range(count):
        most = highest[unsigned(i * P)]
        for p in range(1, P):
            most = highest[unsigned(i * P + p)] if highest[unsigned(i * P + p)] > most else most
        for p in range(P):
            highest[unsigned(i * P + p)] = most


@_part_of_kernel
@no_type_check
def _softmax_again(floats, integers, log_sums, b, first, count, m):
    """What `_softmax` made of WEIGHT, for one level."""
    weights = floats[WEIGHT]
    P = weights.size // count
    for i in range(count):
        log_sum = log_sums[b, unsigned(first + i), m]
        for p in range(P):
            weights[unsigned(i * P + p)] -= log_sum
    _exponentials(weights, integers[TOP])


@_part_of_kernel
@no_type_check
def _exponentials(numbers, powers):
    """`numbers` become their exponentials; `powers` are integers of the same width to work with.

    exp(x) = 2**t exp(r), where t is the integer next to x / ln 2 and r the rest, at most ln 2 / 2. Two to an integer is
    a matter of bits, and a series gives exp(r). The library's own exp would not become vectors.
    """
    number, integer = numbers.dtype.type, powers.dtype.type
    limits = np.finfo(number)
    terms = 14 if limits.nmant > 30 else 8   # the first that is left out is below half a bit
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


@_part_of_kernel
@no_type_check
def _place(level, floats, integers):
    """From X, Y and WEIGHT: the pixels around each point and their factors. X and Y become what lies behind the pixel.

    A point outside the map, or at NaN, goes to the border, where it reads zeros.
    """
    number, integer = floats.dtype.type, integers.dtype.type
    zero, one = number(0), number(1)
    height, width, border = number(level[0]), number(level[1]), level[2]
    row = level[1] + integer(1)
    xs, ys, weights = floats[X], floats[Y], floats[WEIGHT]
    top_lefts, top_rights = floats[TOP_LEFT], floats[TOP_RIGHT]
    bottom_lefts, bottom_rights = floats[BOTTOM_LEFT], floats[BOTTOM_RIGHT]
    tops, bottoms = integers[TOP], integers[BOTTOM]
    for k in range(xs.size):
        x, y = xs[k], ys[k]
        inside = (x > -one) & (x < width) & (y > -one) & (y < height)
        x, y = (x if inside else zero), (y if inside else zero)
        left, top = np.floor(x), np.floor(y)
        x, y = x - left, y - top
        pixel = border + (integer(top) + integer(1)) * row + integer(left) + integer(1)
        tops[k] = pixel if inside else border
        bottoms[k] = pixel + row if inside else border
        xs[k], ys[k] = x, y
        top_weight, bottom_weight = weights[k] * (one - y), weights[k] * y
        top_lefts[k], top_rights[k] = top_weight * (one - x), top_weight * x
        bottom_lefts[k], bottom_rights[k] = bottom_weight * (one - x), bottom_weight * x


@_inlined_part
@no_type_check
def _read(floats, integers, rows, output, b, first, count, m, channels):
    """Sum what the points of each query read of `rows`, the channels of all pixels one after the other."""
    P = floats.shape[2] // count
    for i in range(count):
        q = unsigned(first + i)
        for channel in range(channels):
            output[b, q, m, channel] = 0
        for level in range(floats.shape[0]):
            for k in range(unsigned(i * P), unsigned((i + 1) * P)):
                top = unsigned(integers[level, TOP, k]) * channels
                bottom = unsigned(integers[level, BOTTOM, k]) * channels
                top_left, top_right = floats[level, TOP_LEFT, k], floats[level, TOP_RIGHT, k]
                bottom_left, bottom_right = floats[level, BOTTOM_LEFT, k], floats[level, BOTTOM_RIGHT, k]
                for channel in range(channels):
                    output[b, q, m, channel] += (
                        top_left * rows[top + channel] + top_right * rows[top + channels + channel]
                        + bottom_left * rows[bottom + channel] + bottom_right * rows[bottom + channels + channel])


@_inlined_part
@no_type_check
def _scatter(floats, integers, grad_output, rows, grad_rows, b, first, count, m, channels):
    """DOTS, the products of the rows that each point reads with the gradient, and the gradient to these rows."""
    number = floats.dtype.type
    P = floats.shape[1] // count
    for i in range(count):
        q = unsigned(first + i)
        for k in range(unsigned(i * P), unsigned((i + 1) * P)):
            top, bottom = unsigned(integers[TOP, k]) * channels, unsigned(integers[BOTTOM, k]) * channels
            dot_0, dot_1, dot_2, dot_3 = number(0), number(0), number(0), number(0)
            for channel in range(channels):
                grad = grad_output[b, q, m, channel]
                dot_0 += grad * rows[top + channel]
                dot_1 += grad * rows[top + channels + channel]
                dot_2 += grad * rows[bottom + channel]
                dot_3 += grad * rows[bottom + channels + channel]
            floats[DOTS, k], floats[DOTS + 1, k], floats[DOTS + 2, k], floats[DOTS + 3, k] = dot_0, dot_1, dot_2, dot_3
            top_left, top_right = floats[TOP_LEFT, k], floats[TOP_RIGHT, k]
            bottom_left, bottom_right = floats[BOTTOM_LEFT, k], floats[BOTTOM_RIGHT, k]
            for channel in range(channels):
                grad = grad_output[b, q, m, channel]
                grad_rows[top + channel] += top_left * grad
                grad_rows[top + channels + channel] += top_right * grad
                grad_rows[bottom + channel] += bottom_left * grad
                grad_rows[bottom + channels + channel] += bottom_right * grad


@_part_of_kernel
@no_type_check
def _slopes(floats):
    """From the DOTS the gradients of position, to X and Y, and of weight, to the first of DOTS."""
    one = floats.dtype.type(1)
    for k in range(floats.shape[1]):
        x, y, weight = floats[X, k], floats[Y, k], floats[WEIGHT, k]
        top_slope, bottom_slope = floats[DOTS + 1, k] - floats[DOTS, k], floats[DOTS + 3, k] - floats[DOTS + 2, k]
        top, bottom = floats[DOTS, k] + x * top_slope, floats[DOTS + 2, k] + x * bottom_slope
        floats[X, k] = weight * ((one - y) * top_slope + y * bottom_slope)
        floats[Y, k] = weight * (bottom - top)
        floats[DOTS, k] = top + y * (bottom - top)


@_part_of_kernel
@no_type_check
def _store(floats, softmax, means, grad_positions, grad_logits, b, first, count, m, level):
    """Write a tile's gradients where they belong."""
    P = floats.shape[1] // count
    for i in range(count):
        q = unsigned(first + i)
        mean = means[b, q, m]
        for p in range(P):
            at, point = unsigned(i * P + p), unsigned(level * P + p)
            grad_positions[b, q, m, unsigned(2) * point] = floats[X, at]
            grad_positions[b, q, m, unsigned(2) * point + unsigned(1)] = floats[Y, at]
            grad_weight = floats[DOTS, at]
            grad_logits[b, q, m, point] = floats[WEIGHT, at] * (grad_weight - mean) if softmax else grad_weight
