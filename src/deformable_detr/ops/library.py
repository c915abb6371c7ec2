"""The kernels as PyTorch operators, so that autograd, torch.compile and torch.export know them.

A schema of torch.library takes no nested tuples: the level shapes come as `level_sizes`, the flat list
[height, width, height, width, ...]. The arguments are trusted to be checked.
"""

# ruff: noqa: ARG001 -- torch.library fixes the signatures

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deformable_detr.ops.reference import at_least_float32, gradients_of_offsets, gradients_of_reference

_SCHEMAS = {
    "ms_deform_attn": "(Tensor value, SymInt[] level_sizes, Tensor locations, Tensor weights) -> Tensor",
    # The gradients of value, locations and weights.
    "ms_deform_attn_backward": "(Tensor grad_output, Tensor value, SymInt[] level_sizes, Tensor locations, "
                               "Tensor weights) -> (Tensor, Tensor, Tensor)",
    # The output, and the logarithms of the softmax's sums (B, Q, M), which are all that the backward needs of it.
    "fused_ms_deform_attn": "(Tensor value, SymInt[] level_sizes, Tensor reference, Tensor offsets, Tensor logits) "
                            "-> (Tensor, Tensor)",
    # The gradients of value, of the points' positions in pixels (B, Q, M, L, P, 2), and of logits.
    "fused_ms_deform_attn_backward": "(Tensor grad_output, Tensor value, SymInt[] level_sizes, Tensor reference, "
                                     "Tensor offsets, Tensor logits, Tensor output, Tensor log_sums) "
                                     "-> (Tensor, Tensor, Tensor)",
}
_FUNCTIONS = {"ms_deform_attn": "forward", "ms_deform_attn_backward": "backward",
              "fused_ms_deform_attn": "fused_forward", "fused_ms_deform_attn_backward": "fused_backward"}


def _cpu() -> ModuleType:
    """Numba and Triton take a second to import: only who runs a kernel waits for it."""
    from deformable_detr.ops import cpu

    return cpu


def _gpu() -> ModuleType:
    from deformable_detr.ops import gpu

    return gpu


# torch.library.custom_op would do all this in fewer words; but with their first call its operators import the machinery
# of torch.compile, which takes longer than all the rest of a short program.
for _name, _schema in _SCHEMAS.items():
    torch.library.define(f"deformable_detr::{_name}", _schema, tags=torch.Tag.pt2_compliant_tag)
    for _device, _kernels in (("cpu", _cpu), ("cuda", _gpu)):
        torch.library.impl(
            f"deformable_detr::{_name}", _device,
            lambda *arguments, kernels=_kernels, function=_FUNCTIONS[_name]: getattr(kernels(), function)(*arguments))

ms_deform_attn = torch.ops.deformable_detr.ms_deform_attn.default
ms_deform_attn_backward = torch.ops.deformable_detr.ms_deform_attn_backward.default
fused_ms_deform_attn = torch.ops.deformable_detr.fused_ms_deform_attn.default
fused_ms_deform_attn_backward = torch.ops.deformable_detr.fused_ms_deform_attn_backward.default


@torch.library.register_fake("deformable_detr::ms_deform_attn")
def _(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return _empty_output(value, locations)


@torch.library.register_fake("deformable_detr::ms_deform_attn_backward")
def _(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_like(value), _empty_like(locations), _empty_like(weights)


@torch.library.register_fake("deformable_detr::fused_ms_deform_attn")
def _(
    value: Tensor, level_sizes: Sequence[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    log_sums = value.new_empty(logits.shape[:3], dtype=at_least_float32(value).dtype)
    return _empty_output(value, offsets), log_sums


@torch.library.register_fake("deformable_detr::fused_ms_deform_attn_backward")
def _(
    grad_output: Tensor,
    value: Tensor,
    level_sizes: Sequence[int],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    output: Tensor,
    log_sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_like(value), _empty_like(offsets, log_sums.dtype), _empty_like(logits)


def _empty_output(value: Tensor, offsets: Tensor) -> Tensor:
    B, _, M, D = value.shape
    return value.new_empty((B, offsets.shape[1], M * D))


def _empty_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, level_sizes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)
    ctx.level_sizes = level_sizes


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
    value, locations, weights = ctx.saved_tensors
    grad_value, grad_locations, grad_weights = ms_deform_attn_backward(
        grad_output, value, ctx.level_sizes, locations, weights
    )
    return grad_value, None, grad_locations, grad_weights


def _save_for_fused_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    value, level_sizes, reference, offsets, logits = inputs
    ctx.save_for_backward(value, reference, offsets, logits, *output)
    ctx.level_sizes = level_sizes
    ctx.mark_non_differentiable(output[1])


def _fused_backward(
    ctx: Any, grad_output: Tensor, _: Tensor
) -> tuple[Tensor, None, Tensor | None, Tensor, Tensor]:
    value, reference, offsets, logits, output, log_sums = ctx.saved_tensors
    grad_value, grad_positions, grad_logits = fused_ms_deform_attn_backward(
        grad_output, value, ctx.level_sizes, reference, offsets, logits, output, log_sums
    )
    shapes = tuple(zip(ctx.level_sizes[::2], ctx.level_sizes[1::2], strict=True))
    grad_reference = None
    if ctx.needs_input_grad[2]:   # not in the encoder, where references are fixed
        grad_reference = gradients_of_reference(grad_positions, reference, offsets, shapes)
    grad_offsets = gradients_of_offsets(grad_positions, reference, offsets, shapes)
    return grad_value, None, grad_reference, grad_offsets, grad_logits


def _refuse(ctx: Any, *_: Any) -> None:
    raise RuntimeError("deformable attention has no second derivative")


torch.library.register_autograd("deformable_detr::ms_deform_attn", _backward, setup_context=_save_for_backward)
torch.library.register_autograd(
    "deformable_detr::fused_ms_deform_attn", _fused_backward, setup_context=_save_for_fused_backward)
for _name in ("ms_deform_attn_backward", "fused_ms_deform_attn_backward"):
    torch.library.register_autograd(f"deformable_detr::{_name}", _refuse)
