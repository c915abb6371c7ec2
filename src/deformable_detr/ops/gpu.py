"""The op on the GPU: Triton kernels, forward and backward; README.md has the formulas.

With TRITON_INTERPRET=1 in the environment the same source runs as ordinary Python, on tensors of the CPU: a
debugger can enter it (docs/gpu.md).

A program of a kernel works for BLOCK_Q queries of one head of one picture. What it reads from the maps are tiles
(BLOCK_Q, BLOCK_D), queries by channels; what a query has once, like a position or a weight, is a vector (BLOCK_Q,).
"""

from collections.abc import Sequence
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

SUPPORTED_DTYPES = (torch.float16, torch.bfloat16, torch.float32)

# A program has 128 threads on both makes, since a warp of AMD's data-centre GPUs has 64. Each holds 16 bytes of a
# tile of values, the most that one instruction can load.
_NUM_WARPS = 2 if torch.version.hip else 4
_TILE_BYTES = 128 * 16

# Triton would compile anew for numbers that are 1 or divisible by 16. These differ from batch to batch.
_VARYING_SIZES = ["Q", "N", "M", "P"]


def forward(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The output (B, Q, M * D) in the dtype of `value`; arguments as in `library.ms_deform_attn`."""
    output = _empty_output(value, locations)
    _launch(_forward_kernel, value, level_sizes, None, locations, weights, output, None)
    return output


def backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, each in the shape and dtype of what it belongs to."""
    grad_value = torch.zeros_like(value, dtype=torch.float32, memory_format=torch.contiguous_format)
    grad_locations = torch.empty_like(locations, memory_format=torch.contiguous_format)
    grad_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
    gradients = (grad_value, grad_locations, grad_weights)
    _launch(
        _backward_kernel, value, level_sizes, None, locations, weights, None, None, grad_output, *gradients
    )
    return grad_value.to(value.dtype), grad_locations, grad_weights


def fused_forward(
    value: Tensor, level_sizes: Sequence[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Locations, softmax and samples in one pass; arguments as in `fused_ms_deform_attn`.

    Returns:
        The output (B, Q, M * D) in the dtype of `value`, and (B, Q, M) float32, the logarithm of each head's sum
        of exp(logits): from it and a logit the backward has the weight again.
    """
    output = _empty_output(value, offsets)
    log_sums = logits.new_empty(logits.shape[:3], dtype=torch.float32)
    _launch(_forward_kernel, value, level_sizes, reference, offsets, logits, output, log_sums)
    return output, log_sums


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
    """The gradients of `value`, of the positions, and of `logits`, from what `fused_forward` took and gave.

    That of the positions is (B, Q, M, L, P, 2) in float32, by x and y in pixels of the level.
    """
    grad_value = torch.zeros_like(value, dtype=torch.float32, memory_format=torch.contiguous_format)
    grad_positions = torch.empty_like(offsets, dtype=torch.float32, memory_format=torch.contiguous_format)
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    gradients = (grad_value, grad_positions, grad_logits)
    _launch(
        _backward_kernel,
        value,
        level_sizes,
        reference,
        offsets,
        logits,
        output,
        log_sums,
        grad_output,
        *gradients,
    )
    return grad_value.to(value.dtype), grad_positions, grad_logits


def _empty_output(value: Tensor, offsets: Tensor) -> Tensor:
    B, _, M, D = value.shape
    return value.new_empty((B, offsets.shape[1], M * D))


def _launch(
    kernel: Any,
    value: Tensor,
    level_sizes: Sequence[int],
    reference: Tensor | None,
    offsets: Tensor,
    logits: Tensor,
    *others: Tensor | None,
) -> None:
    """Run a kernel for all queries. Without a reference, `offsets` are locations, and `logits` are weights."""
    B, N, M, D = value.shape
    _, Q, _, L, P, _ = offsets.shape
    if B * Q == 0:
        return
    BLOCK_D = triton.next_power_of_2(D)
    BLOCK_Q = max(1, _TILE_BYTES // (value.element_size() * BLOCK_D))
    tensors = [
        None if tensor is None else tensor.contiguous()
        for tensor in (value, reference, offsets, logits, *others)
    ]
    with torch.cuda.device_of(value):  # which need not be the current one
        kernel[(triton.cdiv(Q, BLOCK_Q) * M * B,)](
            *tensors,
            # As floats: Triton would compile anew for an int that is 1 or divisible by 16.
            tuple(float(size) for size in level_sizes),
            Q,
            N,
            M,
            P,
            L=L,
            D=D,
            COORDINATES=0 if reference is None else reference.shape[-1],
            BLOCK_Q=BLOCK_Q,
            BLOCK_D=BLOCK_D,
            BLOCK_POINTS=triton.next_power_of_2(L * P),
            num_warps=_NUM_WARPS,
            enable_fp_fusion=True,
        )


# `no_type_check` keeps run-time type checkers, as in the tests, from wrapping what Triton compiles.
@triton.jit(do_not_specialize=_VARYING_SIZES)
@no_type_check
def _forward_kernel(
    value,
    reference,
    offsets,
    logits,
    output,
    log_sums,
    level_sizes,
    Q,
    N,
    M,
    P,
    L: tl.constexpr,
    D: tl.constexpr,
    COORDINATES: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_POINTS: tl.constexpr,
):
    """Fill `output` (B, Q, M, D), and for the fused op `log_sums` (B, Q, M)."""
    picture, head, query, is_query = _task(Q, M, BLOCK_Q)
    row = query * M + head
    offsets += row * (L * P * 2)
    logits += row * (L * P)
    channel = tl.arange(0, BLOCK_D)[None, :]
    is_channel = channel < D
    value += (picture * N * M + head) * D

    maximum, total = 0.0, 1.0
    if COORDINATES > 0:
        maximum, total = _softmax_terms(logits, L * P, BLOCK_POINTS)
        tl.store(log_sums + row, maximum + tl.log(total), mask=is_query)
    sums = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    first_token = 0
    for level in tl.static_range(L):
        height = level_sizes[2 * level]
        width = level_sizes[2 * level + 1]
        row_length = tl.cast(width, tl.int32)
        level_reference = reference + (query * L + level) * COORDINATES if COORDINATES > 0 else None
        x_origin, x_scale = _origin_and_scale(level_reference, 0, width, P, COORDINATES)
        y_origin, y_scale = _origin_and_scale(level_reference, 1, height, P, COORDINATES)
        for point in range(level * P, level * P + P):
            x = x_origin + x_scale * tl.load(offsets + 2 * point).to(tl.float32)
            y = y_origin + y_scale * tl.load(offsets + 2 * point + 1).to(tl.float32)
            weight = _weight(logits + point, maximum, COORDINATES)
            left, sees_left, sees_right, left_share, right_share = _neighbours(x, width)
            top, sees_top, sees_bottom, top_share, bottom_share = _neighbours(y, height)
            square = (first_token + top * row_length + left).to(tl.int64)[:, None] * (M * D) + channel
            top_left, top_right, bottom_left, bottom_right = _load_square(
                value + square, M * D, row_length, sees_left, sees_right, sees_top, sees_bottom, is_channel
            )
            sums += (weight * top_share * left_share)[:, None] * top_left
            sums += (weight * top_share * right_share)[:, None] * top_right
            sums += (weight * bottom_share * left_share)[:, None] * bottom_left
            sums += (weight * bottom_share * right_share)[:, None] * bottom_right
        first_token += tl.cast(height * width, tl.int32)
    if COORDINATES > 0:
        sums /= total[:, None]
    tl.store(output + row[:, None] * D + channel, sums, mask=is_query[:, None] & is_channel)


@triton.jit(do_not_specialize=_VARYING_SIZES)
@no_type_check
def _backward_kernel(
    value,
    reference,
    offsets,
    logits,
    output,
    log_sums,
    grad_output,
    grad_value,
    grad_offsets,
    grad_logits,
    level_sizes,
    Q,
    N,
    M,
    P,
    L: tl.constexpr,
    D: tl.constexpr,
    COORDINATES: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_POINTS: tl.constexpr,
):
    """Add to `grad_value` (B, N, M, D), which comes as zeros in float32, and fill the other gradients.

    `grad_offsets` is by positions in pixels for the fused op, and by locations for the other.
    """
    picture, head, query, is_query = _task(Q, M, BLOCK_Q)
    row = query * M + head
    offsets += row * (L * P * 2)
    logits += row * (L * P)
    grad_offsets += row * (L * P * 2)
    grad_logits += row * (L * P)
    channel = tl.arange(0, BLOCK_D)[None, :]
    is_channel = channel < D
    value += (picture * N * M + head) * D
    grad_value += (picture * N * M + head) * D

    own_channels = row[:, None] * D + channel
    grad = tl.load(grad_output + own_channels, mask=is_channel, other=0.0).to(tl.float32)
    log_sum, mean_grad_weight = 0.0, 0.0
    if COORDINATES > 0:
        log_sum = tl.load(log_sums + row)
        own_output = tl.load(output + own_channels, mask=is_channel, other=0.0).to(tl.float32)
        mean_grad_weight = tl.sum(own_output * grad, axis=1)
    first_token = 0
    for level in tl.static_range(L):
        height = level_sizes[2 * level]
        width = level_sizes[2 * level + 1]
        row_length = tl.cast(width, tl.int32)
        level_reference = reference + (query * L + level) * COORDINATES if COORDINATES > 0 else None
        x_origin, x_scale = _origin_and_scale(level_reference, 0, width, P, COORDINATES)
        y_origin, y_scale = _origin_and_scale(level_reference, 1, height, P, COORDINATES)
        for point in range(level * P, level * P + P):
            x = x_origin + x_scale * tl.load(offsets + 2 * point).to(tl.float32)
            y = y_origin + y_scale * tl.load(offsets + 2 * point + 1).to(tl.float32)
            weight = _weight(logits + point, log_sum, COORDINATES)

            left, sees_left, sees_right, left_share, right_share = _neighbours(x, width)
            top, sees_top, sees_bottom, top_share, bottom_share = _neighbours(y, height)
            square = (first_token + top * row_length + left).to(tl.int64)[:, None] * (M * D) + channel
            top_left, top_right, bottom_left, bottom_right = _load_square(
                value + square, M * D, row_length, sees_left, sees_right, sees_top, sees_bottom, is_channel
            )
            top_left_product = tl.sum(top_left * grad, axis=1)
            top_right_product = tl.sum(top_right * grad, axis=1)
            bottom_left_product = tl.sum(bottom_left * grad, axis=1)
            bottom_right_product = tl.sum(bottom_right * grad, axis=1)
            left_product = top_share * top_left_product + bottom_share * bottom_left_product
            right_product = top_share * top_right_product + bottom_share * bottom_right_product
            top_product = left_share * top_left_product + right_share * top_right_product
            bottom_product = left_share * bottom_left_product + right_share * bottom_right_product
            grad_weight = top_share * top_product + bottom_share * bottom_product
            grad_x = weight * (right_product - left_product)
            grad_y = weight * (bottom_product - top_product)
            _add_to_square(
                grad_value + square, M*D, row_length, sees_left & is_query, sees_right & is_query, sees_top, sees_bottom, is_channel,
                (weight * left_share)[:, None] * grad, (weight * right_share)[:, None] * grad, top_share, bottom_share
            )
            if COORDINATES > 0:
                grad_logit = weight * (grad_weight - mean_grad_weight)
                tl.store(grad_logits + point, grad_logit, mask=is_query)
                tl.store(grad_offsets + 2 * point, grad_x, mask=is_query)
                tl.store(grad_offsets + 2 * point + 1, grad_y, mask=is_query)
            else:
                tl.store(grad_logits + point, grad_weight, mask=is_query)
                tl.store(grad_offsets + 2 * point, width * grad_x, mask=is_query)
                tl.store(grad_offsets + 2 * point + 1, height * grad_y, mask=is_query)
        first_token += tl.cast(height * width, tl.int32)


@triton.jit
@no_type_check
def _task(Q, M, BLOCK_Q: tl.constexpr):
    """What this program works for: its picture and head, its queries among (B, Q), and which of them exist.

    The last program of a head may have queries to spare. They repeat the last one, so that they can read as the
    others do, but they must not write.
    """
    num_tiles = tl.cdiv(Q, BLOCK_Q)
    program = tl.program_id(0)
    picture = (program // num_tiles // M).to(tl.int64)  # a tensor may have more than 2^31 elements
    head = program // num_tiles % M
    query = program % num_tiles * BLOCK_Q + tl.arange(0, BLOCK_Q)
    return picture, head, picture * Q + tl.minimum(query, Q - 1), query < Q


@triton.jit
@no_type_check
def _softmax_terms(logits, num_points, BLOCK_POINTS: tl.constexpr):
    """The maximum of each query's logits, and the sum of exp(logits - maximum)."""
    point = tl.arange(0, BLOCK_POINTS)[None, :]
    tile = tl.load(logits[:, None] + point, mask=point < num_points, other=-float("inf")).to(tl.float32)
    maximum = tl.max(tile, axis=1)
    return maximum, tl.sum(tl.exp(tile - maximum[:, None]), axis=1)


@triton.jit
@no_type_check
def _weight(logits, shift, COORDINATES: tl.constexpr):
    """The attention weights of one point: a share of the softmax, or what is given."""
    logit = tl.load(logits).to(tl.float32)
    return tl.exp(logit - shift) if COORDINATES > 0 else logit


@triton.jit
@no_type_check
def _origin_and_scale(reference, AXIS: tl.constexpr, size, P, COORDINATES: tl.constexpr):
    """Along one axis of a level, in pixels: where the offsets start, and the length of an offset of 1.

    The centre of the first pixel is 0. COORDINATES tells what the offsets are: 0 locations in [0, 1], 2 pixels
    beside a point, 4 shares of a box.
    """
    if COORDINATES == 0:
        origin, scale = -0.5, size
    else:
        origin = tl.load(reference + AXIS).to(tl.float32) * size - 0.5
        scale = 1.0
        if COORDINATES == 4:
            scale = tl.load(reference + 2 + AXIS).to(tl.float32) * (0.5 * size / P)
    return origin, scale


@triton.jit
@no_type_check
def _neighbours(position, size):
    """The two pixels around a position along one axis.

    Returns the index of the first, whether each of them lies on the map, and their shares of the sample. A position
    that sees no pixel, or is not finite, is found out first and then replaced by 0: no number becomes too large for
    an integer.
    """
    sees_map = (position > -1) & (position < size)
    position = tl.where(sees_map, position, 0.0)
    first = tl.floor(position)
    second_share = position - first
    sees_first, sees_second = sees_map & (first >= 0), sees_map & (first + 1 < size)
    return first.to(tl.int32), sees_first, sees_second, 1 - second_share, second_share


@triton.jit
@no_type_check
def _load_square(pixel, stride, row_length, sees_left, sees_right, sees_top, sees_bottom, is_channel):
    """The channels of four neighbouring pixels in float32, zeros outside the map.

    All four at once: a processor goes on while it waits for a load, but not past the first use of what it loads.
    """
    below = pixel + row_length.to(tl.int64) * stride
    top_left = tl.load(pixel, mask=(sees_top & sees_left)[:, None] & is_channel, other=0.0)
    top_right = tl.load(pixel + stride, mask=(sees_top & sees_right)[:, None] & is_channel, other=0.0)
    bottom_left = tl.load(below, mask=(sees_bottom & sees_left)[:, None] & is_channel, other=0.0)
    bottom_right = tl.load(below + stride, mask=(sees_bottom & sees_right)[:, None] & is_channel, other=0.0)
    return top_left.to(tl.float32), top_right.to(tl.float32), bottom_left.to(tl.float32), bottom_right.to(tl.float32)

@triton.jit
@no_type_check
def _add_to_square(pixel, stride, row_length, sees_left, sees_right, sees_top, sees_bottom, is_channel, left, right, top_share, bottom_share):
    below = pixel + row_length.to(tl.int64) * stride
    tl.atomic_add(pixel, top_share[:, None]*left, mask=(sees_top & sees_left)[:, None] & is_channel, sem="relaxed")
    tl.atomic_add(pixel + stride, top_share[:, None]*right, mask=(sees_top & sees_right)[:, None] & is_channel, sem="relaxed")
    tl.atomic_add(below, bottom_share[:, None]*left, mask=(sees_bottom & sees_left)[:, None] & is_channel, sem="relaxed")
    tl.atomic_add(below + stride, bottom_share[:, None]*right, mask=(sees_bottom & sees_right)[:, None] & is_channel, sem="relaxed")
