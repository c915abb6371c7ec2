"""Half precision: whether it is worth while here. What stays in float32 is in `model/half.py`."""

import logging
import platform
from collections.abc import Callable
from typing import Literal, get_args

import torch

from deformable_detr.model.half import compute_in_half
from deformable_detr.model.network import Network

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "auto", "bf16", "fp16"]

TURNS = 3           # of the measurement; the best of each counts
CLEARLY = 0.9       # the share of float32's time below which bf16 is taken


def check_precision(precision: str) -> None:
    """Raise ValueError for a precision that there is not."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision: expected {', '.join(get_args(Precision))}, got {precision!r}")


def lower(model: Network, dtype: torch.dtype) -> None:
    """Let a model compute its heavy products in `dtype`; a warning is logged where that is slow."""
    if dtype == torch.float16 and not _has_fp16(next(model.parameters()).device):
        logger.warning("precision: this processor has no fp16 arithmetic; fp32 is much faster here")
    compute_in_half(model, dtype)


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
