"""The kernels as PyTorch operators, so that autograd, torch.compile and torch.export know them.

A schema of torch.library takes no nested tuples: the level shapes come as `level_sizes`, the flat list
[height, width, height, width, ...].
"""

# ruff: noqa: ARG001 -- torch.library fixes the signatures

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("deformable_detr::ms_deform_attn", mutates_args=(), device_types="cpu")
def ms_deform_attn(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """See `deformable_detr.ops.ms_deform_attn`; arguments are trusted to be checked."""
    from deformable_detr.ops import cpu  # Numba takes a second to import: only who runs a kernel waits for it

    return cpu.forward(value, level_sizes, locations, weights)


@torch.library.custom_op("deformable_detr::ms_deform_attn_backward", mutates_args=(), device_types="cpu")
def ms_deform_attn_backward(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, from that of the output (B, Q, M * D)."""
    from deformable_detr.ops import cpu

    return cpu.backward(grad_output, value, level_sizes, locations, weights)


@ms_deform_attn.register_fake
def _(value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    B, _, M, D = value.shape
    return value.new_empty((B, locations.shape[1], M * D))


@ms_deform_attn_backward.register_fake
def _(
    grad_output: Tensor, value: Tensor, level_sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(value, memory_format=torch.contiguous_format),
        torch.empty_like(locations, memory_format=torch.contiguous_format),
        torch.empty_like(weights, memory_format=torch.contiguous_format),
    )


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


ms_deform_attn.register_autograd(_backward, setup_context=_save_for_backward)
