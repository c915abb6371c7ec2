"""A model with its heavy products in half precision: which they are, and what stays in float32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from deformable_detr.model.attention import DeformableAttention
from deformable_detr.model.network import Network

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def compute_in_half(model: Network, dtype: torch.dtype) -> None:
    """Let a model compute its heavy products in `dtype`: those over pixels and tokens.

    Queries are few, so everything about them stays in float32: references, boxes, scores, and the proposals that they
    start from. Also in the encoder the softmax and the locations are computed in float32. A backbone with depthwise
    convolutions is too coarse in bfloat16: a channel's few weights leave no rounding to average out.
    """
    parts = (model.pyramid, model.encoder)
    if dtype != torch.bfloat16 or not _is_depthwise(model.backbone):
        parts = (model.backbone, *parts)
    for part in parts:
        _compute_in(part, dtype)
    _return_float32(model.encoder)
    for module in model.decoder.modules():
        if isinstance(module, DeformableAttention):
            # A projection of every token, and of what the op returns in the type of these.
            _compute_in(module.value_projection, dtype)
            _compute_in(module.output_projection, dtype)


def _is_depthwise(part: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels for module in part.modules())


def _compute_in(part: nn.Module, dtype: torch.dtype) -> None:
    """Under autocast, with weights that are converted now rather than for every image."""
    device = next(part.parameters()).device.type
    part.forward = torch.autocast(device, dtype, cache_enabled=False)(part.forward)
    for module in part.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(dtype)


def _return_float32(part: nn.Module) -> None:
    forward: Callable[..., Any] = part.forward

    def in_float32(*inputs: Any) -> Any:
        return tree_map_only(Tensor, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor,
                             forward(*inputs))

    part.forward = in_float32
