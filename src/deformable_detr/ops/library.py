"""The kernels as PyTorch operators, known to autograd, torch.compile and torch.export.

Four operators: the plain and the fused op, and the backward of each. Each has a schema, kernels, a fake (the shapes and
dtypes of its results, for tracing) and, below all of them, a derivative. A schema of torch.library takes no nested
tuples: level shapes come as `level_sizes`, the flat list [height, width, height, width, ...]. Arguments are not checked
here.

`torch.library.custom_op` would be shorter, but the first call of such an operator imports the machinery of
torch.compile, which takes longer than all the rest of a short program.
"""

# ruff: noqa: ARG001 -- torch.library fixes the signatures

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deformable_detr.ops.reference import at_least_float32, gradients_of_offsets, gradients_of_reference

KERNEL_DEVICES = ("cpu", "cuda")


def _kernels_for(tensor: Tensor) -> ModuleType:
    """The module whose kernels run where the tensor is. Importing Numba or Triton takes a second, so it waits."""
    if tensor.device.type == "cpu":
        from deformable_detr.ops import cpu

        return cpu
    from deformable_detr.ops import gpu

    return gpu


def _define(name: str, schema: str) -> None:
    torch.library.define(name, schema, tags=torch.Tag.pt2_compliant_tag)


_define("deformable_detr::ms_deform_attn",
        "(Tensor value, SymInt[] level_sizes, Tensor locations, Tensor weights) -> Tensor")


@torch.library.impl("deformable_detr::ms_deform_attn", KERNEL_DEVICES)
def _run_ms_deform_attn(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return _kernels_for(value).forward(value, level_sizes, locations, weights)


@torch.library.register_fake("deformable_detr::ms_deform_attn")
def _fake_ms_deform_attn(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return _empty_output(value, locations)


# The gradients of value, locations and weights.
_define("deformable_detr::ms_deform_attn_backward",
        "(Tensor grad_output, Tensor value, SymInt[] level_sizes, Tensor locations, Tensor weights) "
        "-> (Tensor, Tensor, Tensor)")


@torch.library.impl("deformable_detr::ms_deform_attn_backward", KERNEL_DEVICES)
def _run_ms_deform_attn_backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels_for(value).backward(grad_output, value, level_sizes, locations, weights)


@torch.library.register_fake("deformable_detr::ms_deform_attn_backward")
def _fake_ms_deform_attn_backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_like(value), _empty_like(locations), _empty_like(weights)


# The output, and the logarithms of the softmax's sums (B, Q, M), which are all that the backward needs of it.
_define("deformable_detr::fused_ms_deform_attn",
        "(Tensor value, SymInt[] level_sizes, Tensor reference, Tensor offsets, Tensor logits) -> (Tensor, Tensor)")


@torch.library.impl("deformable_detr::fused_ms_deform_attn", KERNEL_DEVICES)
def _run_fused_ms_deform_attn(
    value: Tensor, level_sizes: Sequence[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    return _kernels_for(value).fused_forward(value, level_sizes, reference, offsets, logits)


@torch.library.register_fake("deformable_detr::fused_ms_deform_attn")
def _fake_fused_ms_deform_attn(
    value: Tensor, level_sizes: Sequence[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    log_sums = value.new_empty(logits.shape[:3], dtype=at_least_float32(value).dtype)
    return _empty_output(value, offsets), log_sums


# The gradients of value, of the points' positions in pixels (B, Q, M, L, P, 2), and of logits.
_define("deformable_detr::fused_ms_deform_attn_backward",
        "(Tensor grad_output, Tensor value, SymInt[] level_sizes, Tensor reference, Tensor offsets, Tensor logits, "
        "Tensor output, Tensor log_sums) -> (Tensor, Tensor, Tensor)")


@torch.library.impl("deformable_detr::fused_ms_deform_attn_backward", KERNEL_DEVICES)
def _run_fused_ms_deform_attn_backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], reference: Tensor, offsets: Tensor,
    logits: Tensor, output: Tensor, log_sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels_for(value).fused_backward(
        grad_output, value, level_sizes, reference, offsets, logits, output, log_sums)


@torch.library.register_fake("deformable_detr::fused_ms_deform_attn_backward")
def _fake_fused_ms_deform_attn_backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], reference: Tensor, offsets: Tensor,
    logits: Tensor, output: Tensor, log_sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_like(value), _empty_like(offsets, log_sums.dtype), _empty_like(logits)


def _empty_output(value: Tensor, offsets: Tensor) -> Tensor:
    B, _, M, D = value.shape
    return value.new_empty((B, offsets.shape[1], M * D))


def _empty_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)


ms_deform_attn = torch.ops.deformable_detr.ms_deform_attn.default
ms_deform_attn_backward = torch.ops.deformable_detr.ms_deform_attn_backward.default
fused_ms_deform_attn = torch.ops.deformable_detr.fused_ms_deform_attn.default
fused_ms_deform_attn_backward = torch.ops.deformable_detr.fused_ms_deform_attn_backward.default


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, level_sizes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)
    ctx.level_sizes = level_sizes


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
    value, locations, weights = ctx.saved_tensors
    grad_value, grad_locations, grad_weights = ms_deform_attn_backward(
        grad_output, value, ctx.level_sizes, locations, weights)
    return grad_value, None, grad_locations, grad_weights


def _save_for_fused_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    value, level_sizes, reference, offsets, logits = inputs
    ctx.save_for_backward(value, reference, offsets, logits, *output)
    ctx.level_sizes = level_sizes
    ctx.mark_non_differentiable(output[1])


def _fused_backward(
    ctx: Any, grad_output: Tensor, grad_log_sums: Tensor
) -> tuple[Tensor, None, Tensor | None, Tensor, Tensor]:
    value, reference, offsets, logits, output, log_sums = ctx.saved_tensors
    grad_value, grad_positions, grad_logits = fused_ms_deform_attn_backward(
        grad_output, value, ctx.level_sizes, reference, offsets, logits, output, log_sums)
    shapes = tuple(zip(ctx.level_sizes[::2], ctx.level_sizes[1::2], strict=True))
    grad_reference = None
    if ctx.needs_input_grad[2]:   # not in the encoder, where references are fixed
        grad_reference = gradients_of_reference(grad_positions, reference, offsets, shapes)
    grad_offsets = gradients_of_offsets(grad_positions, reference, offsets, shapes)
    return grad_value, None, grad_reference, grad_offsets, grad_logits


def _refuse_second_derivative(ctx: Any, *gradients: Any) -> None:
    raise RuntimeError("the kernels of deformable attention have no second derivative: compute it inside "
                       "`with deformable_detr.ops.use_backend(\"reference\")`")


torch.library.register_autograd(
    "deformable_detr::ms_deform_attn", _backward, setup_context=_save_for_backward)
torch.library.register_autograd(
    "deformable_detr::fused_ms_deform_attn", _fused_backward, setup_context=_save_for_fused_backward)
torch.library.register_autograd("deformable_detr::ms_deform_attn_backward", _refuse_second_derivative)
torch.library.register_autograd("deformable_detr::fused_ms_deform_attn_backward", _refuse_second_derivative)
