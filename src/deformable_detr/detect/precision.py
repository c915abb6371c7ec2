"""Half precision: which products it computes, and whether it is worth while here."""

import logging
import platform
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from deformable_detr.model.attention import DeformableAttention
from deformable_detr.model.network import Network

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "auto", "bf16", "fp16"]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}

TURNS = 3           # of the measurement; the best of each counts
CLEARLY = 0.9       # the share of float32's time below which bf16 is taken


def check_precision(precision: str) -> None:
    """Raise ValueError for a precision that there is not."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision: expected {', '.join(get_args(Precision))}, got {precision!r}")


def lower(model: Network, dtype: torch.dtype) -> None:
    """Let a model compute its heavy products in `dtype`: those over pixels and tokens.

    Queries are few, so everything about them stays in float32: references, boxes, scores, and the proposals that they
    start from. Also in the encoder the softmax and the locations are computed in float32. So is a backbone with
    depthwise convolutions: a channel's few weights leave no rounding to average out, which moved boxes three times as
    far, and their products gain little.
    """
    if dtype == torch.float16 and not _has_fp16(next(model.parameters()).device):
        logger.warning("precision: this processor has no fp16 arithmetic; fp32 is much faster here")
    for part in (model.backbone, model.pyramid, model.encoder):
        if not _is_depthwise(part):
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


def choose_precision(device: torch.device, seconds: Callable[[str], float]) -> str:
    """ "bf16" where it is known to be faster or was so when measured, else "fp32"; what and why is logged.

    `seconds` measures how long a small image takes in a precision.
    """
    chosen, reason = _chosen(device, seconds)
    logger.info("precision: %s (%s)", chosen, reason)
    return chosen


def _chosen(device: torch.device, seconds: Callable[[str], float]) -> tuple[str, str]:
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU computes it faster") if fast else ("fp32", "this GPU has no bf16")
    if device.type != "cpu":
        return "fp32", f"nothing is known of bf16 on {device.type}"
    if torch.cpu._is_amx_tile_supported():
        return "bf16", "this processor has AMX"
    if not _has_bf16():
        return "fp32", "this processor has no bf16 arithmetic"
    times: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(TURNS):
        for precision, each in times.items():
            each.append(seconds(precision))
    share = min(times["bf16"]) / min(times["fp32"])
    measured = f"bf16 took {share:.2f} of the time of fp32 here"
    return ("bf16" if share < CLEARLY else "fp32"), measured


def _has_bf16() -> bool:
    """Whether this processor computes in bf16. oneDNN would also imitate it, ten times as slowly as float32."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has_fp16(device: torch.device) -> bool:
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_fp16_supported()
