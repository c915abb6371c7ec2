"""The op on the GPU: Triton kernels, forward and backward; README.md has the formulas.

With TRITON_INTERPRET=1 in the environment the same source runs as ordinary Python, on tensors of the CPU: a debugger
can enter it. docs/gpu.md says how, and why programs have the size they have.

A program is one warp, which computes BLOCK_Q queries of one head of one image. What it reads from the maps are tiles
(BLOCK_Q, BLOCK_D), queries by channels; what a query has once, like a position or a weight, is a vector (BLOCK_Q,).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

# Triton compiles again for an int that is 1 or divisible by 16. These differ from batch to batch.
_VARYING_SIZES = ["Q", "N", "M", "P"]


def forward(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The output (B, Q, M * D) in the dtype of `value`; arguments as in `library.ms_deform_attn`."""
    output = _empty_output(value, locations)
    _launch(forward_kernel, value, level_sizes, None, locations, weights, (output, None))
    return output


def backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, each in the shape and dtype of what it belongs to."""
    gradients = _zero_gradient(value), _empty_gradient(locations), _empty_gradient(weights)
    known = (grad_output, None, None)
    _launch(backward_kernel, value, level_sizes, None, locations, weights, (*known, *gradients))
    grad_value, grad_locations, grad_weights = gradients
    return grad_value.to(value.dtype), grad_locations, grad_weights


def fused_forward(
    value: Tensor, level_sizes: Sequence[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Locations, softmax and samples in one pass; arguments as in `fused_ms_deform_attn`.

    Returns:
        The output (B, Q, M * D) in the dtype of `value`, and (B, Q, M) in float32, the logarithm of each head's sum
        of exp(logits): the backward computes the weights from it and the logits.
    """
    output = _empty_output(value, offsets)
    log_sums = logits.new_empty(logits.shape[:3], dtype=torch.float32)
    _launch(forward_kernel, value, level_sizes, reference, offsets, logits, (output, log_sums))
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
    """The gradients of `value`, positions and `logits`, from the inputs and outputs of `fused_forward`.

    Positions are x and y in pixels of the level: their gradient is (B, Q, M, L, P, 2), in float32.
    """
    gradients = _zero_gradient(value), _empty_gradient(offsets, torch.float32), _empty_gradient(logits)
    known = (grad_output, output, log_sums)
    _launch(backward_kernel, value, level_sizes, reference, offsets, logits, (*known, *gradients))
    grad_value, grad_positions, grad_logits = gradients
    return grad_value.to(value.dtype), grad_positions, grad_logits


def _empty_output(value: Tensor, offsets: Tensor) -> Tensor:
    B, _, M, D = value.shape
    return value.new_empty((B, offsets.shape[1], M * D))


def _zero_gradient(value: Tensor) -> Tensor:
    """In float32, as many small numbers are added up in one pixel, and as GPUs add no other type as fast."""
    return torch.zeros_like(value, dtype=torch.float32, memory_format=torch.contiguous_format)


def _empty_gradient(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class GpuTraits:
    """The properties of a GPU that decide the size of a program."""

    warp_size: int
    adds_vectors: bool  # does one instruction add four numbers to memory?

    @staticmethod
    def of(device: torch.device) -> "GpuTraits":
        if device.type != "cuda":  # Triton's interpreter: any size will do
            return GpuTraits(warp_size=32, adds_vectors=True)
        properties = torch.cuda.get_device_properties(device)
        return GpuTraits(properties.warp_size, adds_vectors=torch.version.hip is None and properties.major >= 9)


def kernel_constants(
    traits: GpuTraits, *, is_backward: bool, element_size: int, L: int, P: int, D: int, coordinates: int
) -> dict[str, int]:
    """The constants that a kernel is compiled with.

    A thread loads 16 bytes of values at once, the most that an instruction can. In the backward it has as many channels
    as it can add at once: otherwise Triton would move every gradient from thread to thread before it is added.
    """
    BLOCK_D = triton.next_power_of_2(D)
    per_thread = 16 // element_size
    if is_backward:
        per_thread = 4 if traits.adds_vectors else 1
    BLOCK_Q = max(1, traits.warp_size * min(per_thread, BLOCK_D) // BLOCK_D)
    constants = {"L": L, "D": D, "COORDINATES": coordinates, "BLOCK_Q": BLOCK_Q, "BLOCK_D": BLOCK_D}
    if not is_backward:
        constants["BLOCK_POINTS"] = triton.next_power_of_2(L * P)
    return constants


def _launch(
    kernel: Any,
    value: Tensor,
    level_sizes: Sequence[int],
    reference: Tensor | None,
    offsets: Tensor,
    logits: Tensor,
    others: tuple[Tensor | None, ...],
) -> None:
    """Run a kernel for all queries. Without a reference, `offsets` are locations and `logits` are weights."""
    B, N, M, D = value.shape
    _, Q, _, L, P, _ = offsets.shape
    if B * Q == 0:
        return
    constants = kernel_constants(
        GpuTraits.of(value.device),
        is_backward=kernel is backward_kernel,
        element_size=value.element_size(),
        L=L,
        P=P,
        D=D,
        coordinates=0 if reference is None else reference.shape[-1],
    )
    tensors = (value, reference, offsets, logits, *others)
    tensors = [None if tensor is None else tensor.contiguous() for tensor in tensors]
    # As floats, for which Triton does not specialise: `do_not_specialize` does not reach into a tuple.
    sizes = tuple(float(size) for size in level_sizes)
    num_programs = triton.cdiv(Q, constants["BLOCK_Q"]) * M * B
    with torch.cuda.device_of(value):  # it need not be the current one
        kernel[(num_programs,)](*tensors, sizes, Q, N, M, P, **constants, num_warps=1, enable_fp_fusion=True)


# `no_type_check` keeps run-time type checkers, as in the tests, from wrapping what Triton compiles.
@triton.jit(do_not_specialize=_VARYING_SIZES)
@no_type_check
def forward_kernel(
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
    """Fill `output` (B, Q, M, D) and, for the fused op, `log_sums` (B, Q, M)."""
    image, head, query, is_query = _task(Q, M, BLOCK_Q)
    channel = tl.arange(0, BLOCK_D)[None, :]
    is_channel = channel < D
    row = query * M + head
    value += (image * N * M + head) * D + channel
    offsets += row * (L * P * 2)
    logits += row * (L * P)

    maximum, total = 0.0, 1.0
    if COORDINATES > 0:
        maximum, total = _softmax_terms(logits, L * P, BLOCK_POINTS)
        tl.store(log_sums + row, maximum + tl.log(total), mask=is_query)
    sums = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    first_token = 0
    for level in tl.static_range(L):
        height, width = level_sizes[2 * level], level_sizes[2 * level + 1]
        num_columns = tl.cast(width, tl.int32)
        x_origin, x_scale = _origin_and_scale(reference, query * L + level, 0, width, P, COORDINATES)
        y_origin, y_scale = _origin_and_scale(reference, query * L + level, 1, height, P, COORDINATES)
        for point in range(level * P, level * P + P):
            weight = _weight(logits + point, maximum, COORDINATES)
            x = x_origin + x_scale * tl.load(offsets + 2 * point).to(tl.float32)
            y = y_origin + y_scale * tl.load(offsets + 2 * point + 1).to(tl.float32)
            _, columns, rows, square = _read_square(value, M * D, first_token, x, y, width, height, is_channel)
            _, _, left_share, right_share = columns
            _, _, top_share, bottom_share = rows
            top_left, top_right, bottom_left, bottom_right = square
            sums += (weight * top_share * left_share)[:, None] * top_left
            sums += (weight * top_share * right_share)[:, None] * top_right
            sums += (weight * bottom_share * left_share)[:, None] * bottom_left
            sums += (weight * bottom_share * right_share)[:, None] * bottom_right
        first_token += tl.cast(height, tl.int32) * num_columns
    if COORDINATES > 0:
        sums /= total[:, None]
    tl.store(output + row[:, None] * D + channel, sums, mask=is_query[:, None] & is_channel)


@triton.jit(do_not_specialize=_VARYING_SIZES)
@no_type_check
def backward_kernel(
    value,
    reference,
    offsets,
    logits,
    grad_output,
    output,
    log_sums,
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
):
    """Add to `grad_value` (B, N, M, D), zeros at first, and fill the other gradients.

    For the fused op `grad_offsets` is the gradient of positions in pixels of the level; without a reference, of
    locations.
    """
    image, head, query, is_query = _task(Q, M, BLOCK_Q)
    channel = tl.arange(0, BLOCK_D)[None, :]
    is_channel = channel < D
    row = query * M + head
    value += (image * N * M + head) * D + channel
    grad_value += (image * N * M + head) * D + channel
    offsets += row * (L * P * 2)
    grad_offsets += row * (L * P * 2)
    logits += row * (L * P)
    grad_logits += row * (L * P)

    own_channels = row[:, None] * D + channel
    grad = tl.load(grad_output + own_channels, mask=is_channel, other=0.0).to(tl.float32)
    log_sum, mean_product = 0.0, 0.0
    if COORDINATES > 0:
        log_sum = tl.load(log_sums + row)
        own_output = tl.load(output + own_channels, mask=is_channel, other=0.0).to(tl.float32)
        mean_product = tl.sum(own_output * grad, axis=1)
    first_token = 0
    for level in tl.static_range(L):
        height, width = level_sizes[2 * level], level_sizes[2 * level + 1]
        num_columns = tl.cast(width, tl.int32)
        x_origin, x_scale = _origin_and_scale(reference, query * L + level, 0, width, P, COORDINATES)
        y_origin, y_scale = _origin_and_scale(reference, query * L + level, 1, height, P, COORDINATES)
        for point in range(level * P, level * P + P):
            weight = _weight(logits + point, log_sum, COORDINATES)
            x = x_origin + x_scale * tl.load(offsets + 2 * point).to(tl.float32)
            y = y_origin + y_scale * tl.load(offsets + 2 * point + 1).to(tl.float32)
            token, columns, rows, square = _read_square(value, M * D, first_token, x, y, width, height, is_channel)
            sees_left, sees_right, left_share, right_share = columns
            sees_top, sees_bottom, top_share, bottom_share = rows
            top_left, top_right, bottom_left, bottom_right = square
            # The additions do not need what is being loaded: they are sent out before it arrives.
            _add_to_square(
                grad_value + token * (M * D),
                M * D,
                num_columns,
                sees_left[:, None] & is_channel,
                sees_right[:, None] & is_channel,
                (sees_top & is_query)[:, None],
                (sees_bottom & is_query)[:, None],
                (weight * left_share)[:, None] * grad,
                (weight * right_share)[:, None] * grad,
                top_share[:, None],
                bottom_share[:, None],
            )

            # Products of the rows with the gradient: zero outside the map, as the rows are.
            top_left_product = tl.sum(top_left * grad, axis=1)
            top_right_product = tl.sum(top_right * grad, axis=1)
            bottom_left_product = tl.sum(bottom_left * grad, axis=1)
            bottom_right_product = tl.sum(bottom_right * grad, axis=1)
            left_product = top_share * top_left_product + bottom_share * bottom_left_product
            right_product = top_share * top_right_product + bottom_share * bottom_right_product
            top_product = left_share * top_left_product + right_share * top_right_product
            bottom_product = left_share * bottom_left_product + right_share * bottom_right_product
            product = top_share * top_product + bottom_share * bottom_product
            grad_x = weight * (right_product - left_product)
            grad_y = weight * (bottom_product - top_product)
            if COORDINATES > 0:
                tl.store(grad_logits + point, weight * (product - mean_product), mask=is_query)
            else:
                tl.store(grad_logits + point, product, mask=is_query)
                grad_x *= width
                grad_y *= height
            tl.store(grad_offsets + 2 * point, grad_x, mask=is_query)
            tl.store(grad_offsets + 2 * point + 1, grad_y, mask=is_query)
        first_token += tl.cast(height, tl.int32) * num_columns


@triton.jit
@no_type_check
def _task(Q, M, BLOCK_Q: tl.constexpr):
    """The part of this program: its image and head, its queries among (B, Q), and which of these exist.

    The last program of a head may have room for more queries than there are. The surplus repeats the last query, so
    that it reads valid memory, and must not write.
    """
    num_tiles = tl.cdiv(Q, BLOCK_Q)
    program = tl.program_id(0)
    image = (program // num_tiles // M).to(tl.int64)  # a tensor may have more than 2^31 elements
    head = program // num_tiles % M
    query = program % num_tiles * BLOCK_Q + tl.arange(0, BLOCK_Q)
    return image, head, image * Q + tl.minimum(query, Q - 1), query < Q


@triton.jit
@no_type_check
def _softmax_terms(logits, num_points, BLOCK_POINTS: tl.constexpr):
    """The maximum of each query's logits, and the sum of exp(logit - maximum)."""
    point = tl.arange(0, BLOCK_POINTS)[None, :]
    tile = tl.load(logits[:, None] + point, mask=point < num_points, other=-float("inf")).to(tl.float32)
    maximum = tl.max(tile, axis=1)
    return maximum, tl.sum(tl.exp(tile - maximum[:, None]), axis=1)


@triton.jit
@no_type_check
def _weight(logit, shift, COORDINATES: tl.constexpr):
    """The attention weight of a point: exp(logit - shift), or without a reference the number itself."""
    weight = tl.load(logit).to(tl.float32)
    if COORDINATES > 0:
        weight = tl.exp(weight - shift)
    return weight


@triton.jit
@no_type_check
def _origin_and_scale(reference, row, AXIS: tl.constexpr, size, P, COORDINATES: tl.constexpr):
    """Along one axis of a level, where offsets start and how long an offset of 1 is, in pixels.

    The first pixel's centre is 0. COORDINATES says what the offsets are: 0 locations in [0, 1], 2 pixels from a
    reference point, 4 fractions of a reference box.
    """
    origin, scale = -0.5, 1.0
    if COORDINATES == 0:
        scale = size
    else:
        origin = tl.load(reference + row * COORDINATES + AXIS).to(tl.float32) * size - 0.5
    if COORDINATES == 4:
        scale = tl.load(reference + row * COORDINATES + 2 + AXIS).to(tl.float32) * (0.5 * size / P)
    return origin, scale


@triton.jit
@no_type_check
def _read_square(value, stride, first_token, x, y, width, height, is_channel):
    """The four pixels around a position on one level.

    Returns the token of the upper left one, relative to `value`; for columns and for rows, whether each of the two is
    seen and their shares; and the channels of the four pixels.
    """
    num_columns = tl.cast(width, tl.int32)
    left, sees_left, sees_right, left_share, right_share = _neighbours(x, width)
    top, sees_top, sees_bottom, top_share, bottom_share = _neighbours(y, height)
    token = (first_token + top * num_columns + left).to(tl.int64)[:, None]
    square = _load_square(
        value + token * stride,
        stride,
        num_columns,
        sees_left[:, None] & is_channel,
        sees_right[:, None] & is_channel,
        sees_top[:, None],
        sees_bottom[:, None],
    )
    columns = sees_left, sees_right, left_share, right_share
    rows = sees_top, sees_bottom, top_share, bottom_share
    return token, columns, rows, square


@triton.jit
@no_type_check
def _neighbours(position, size):
    """The two pixels around a position along one axis.

    Returns the index of the first, whether each is seen, that is, on the map, and their shares of the sample. A
    position that is not finite or sees no pixel is replaced by 0 after that test: an integer could not hold it.
    """
    sees_map = (position >= -1) & (position < size)
    position = tl.where(sees_map, position, 0.0)
    first = tl.floor(position)
    sees_first = sees_map & (first >= 0)
    sees_second = sees_map & (first + 1 < size)
    second_share = position - first
    return first.to(tl.int32), sees_first, sees_second, 1 - second_share, second_share


@triton.jit
@no_type_check
def _load_square(top_left, stride, num_columns, sees_left, sees_right, sees_top, sees_bottom):
    """The channels of four neighbouring pixels in float32, zeros where they are not seen.

    All four loads are issued before the first result is used, so that their waits overlap.
    """
    top_right = top_left + stride
    bottom_left = top_left + num_columns.to(tl.int64) * stride
    bottom_right = bottom_left + stride
    top_left = tl.load(top_left, mask=sees_top & sees_left, other=0.0)
    top_right = tl.load(top_right, mask=sees_top & sees_right, other=0.0)
    bottom_left = tl.load(bottom_left, mask=sees_bottom & sees_left, other=0.0)
    bottom_right = tl.load(bottom_right, mask=sees_bottom & sees_right, other=0.0)
    return (
        top_left.to(tl.float32),
        top_right.to(tl.float32),
        bottom_left.to(tl.float32),
        bottom_right.to(tl.float32),
    )


@triton.jit
@no_type_check
def _add_to_square(
    top_left,
    stride,
    num_columns,
    sees_left,
    sees_right,
    sees_top,
    sees_bottom,
    left,
    right,
    top_share,
    bottom_share,
):
    """Add to the four pixels: `left` and `right`, each divided between its upper and its lower pixel.

    Other programs add to the same pixels. With "relaxed" and an unused result, an atomic operation becomes a plain
    addition in memory, which no thread waits for.
    """
    top_right = top_left + stride
    bottom_left = top_left + num_columns.to(tl.int64) * stride
    bottom_right = bottom_left + stride
    tl.atomic_add(top_left, top_share * left, mask=sees_top & sees_left, sem="relaxed")
    tl.atomic_add(top_right, top_share * right, mask=sees_top & sees_right, sem="relaxed")
    tl.atomic_add(bottom_left, bottom_share * left, mask=sees_bottom & sees_left, sem="relaxed")
    tl.atomic_add(bottom_right, bottom_share * right, mask=sees_bottom & sees_right, sem="relaxed")
