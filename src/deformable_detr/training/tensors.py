"""The tensors of a training by name: model/NAME, optimizer/NAME/PART, average/NAME; taken, checked, given back."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.swa_utils import AveragedModel

from deformable_detr.weights.native import current_name

MODEL, OPTIMIZER, AVERAGE = "model/", "optimizer/", "average/"
NAME_STARTS = (MODEL, OPTIMIZER, f"{AVERAGE}module.")   # each followed by the name of a tensor of the model
NEVER_NEGATIVE = ("/step", "/exp_avg_sq", "/n_averaged")


def training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer,
                     average: AveragedModel | None) -> dict[str, Tensor]:
    """Weights, AdamW's memory of each, and their average, if there is one.

    All processes must call this for a sharded model; the first gets the tensors, the others only the average's.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: Any = get_model_state_dict(model, options=options)
    memory: Any = get_optimizer_state_dict(model, optimizer, options=options).get("state", {})
    tensors = _prefixed(MODEL, weights)
    for name, parts in memory.items():
        tensors |= _prefixed(f"{OPTIMIZER}{name}/", parts)
    return tensors | (_prefixed(AVERAGE, average.state_dict()) if average else {})


def load_training_tensors(tensors: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer,
                          average: AveragedModel | None) -> None:
    """Give back what `training_tensors` took; the optimizer's settings stay as they are.

    `check_training_tensors` must have found that they fit.
    """
    options = StateDictOptions(full_state_dict=True)
    weights: Any = _without_prefix(MODEL, tensors)
    set_model_state_dict(model, weights, options=options)
    memory: Any = {}
    for key, tensor in _without_prefix(OPTIMIZER, tensors).items():
        name, part = key.rsplit("/", 1)
        memory.setdefault(name, {})[part] = tensor
    settings = get_optimizer_state_dict(model, optimizer, options=options)["param_groups"]
    set_optimizer_state_dict(model, optimizer, {"state": memory, "param_groups": settings}, options=options)
    if average:
        average.load_state_dict(_without_prefix(AVERAGE, tensors))


def check_training_tensors(tensors: Mapping[str, Tensor], model: nn.Module, average: AveragedModel | None) -> None:
    """Raise ValueError for a tensor that is missing, unknown, of another shape or type, or holds impossible values."""
    expected = _expected(model, average)
    problems = {"missing": [name for name in expected if name not in tensors],
                "unknown": [name for name in tensors if name not in expected],
                "of another shape": _different(expected, tensors, "shape"),
                "of another type": _different(expected, tensors, "dtype")}
    for kind, names in problems.items():
        if names:
            raise ValueError(f"{len(names)} tensors {kind}, such as {names[0]}")
    if (name := not_finite(tensors)) is not None:
        raise ValueError(f"{name} is not finite")
    for name, tensor in tensors.items():
        if name.endswith(NEVER_NEGATIVE) and tensor.numel() and tensor.min() < 0:
            raise ValueError(f"{name} is negative")


def current_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that this release gives them."""
    return {_current_name(name): tensor for name, tensor in tensors.items()}


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity."""
    # The sum, which takes a tenth of the time, is finite only if all is; but huge finite values can overflow it.
    return next((name for name, tensor in tensors.items() if not (tensor.sum().isfinite() or tensor.isfinite().all())),
                None)


def _expected(model: nn.Module, average: AveragedModel | None) -> dict[str, Tensor]:
    """Tensors, some without memory, of the names, shapes and types that a state of this training has."""
    expected = _prefixed(MODEL, model.state_dict())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            moment = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
            expected[f"{OPTIMIZER}{name}/step"] = torch.empty((), device="meta", dtype=torch.float32)
            expected |= _prefixed(f"{OPTIMIZER}{name}/", {"exp_avg": moment, "exp_avg_sq": moment})
    return expected | (_prefixed(AVERAGE, average.state_dict()) if average else {})


def _different(expected: Mapping[str, Tensor], found: Mapping[str, Tensor],
               attribute: Literal["shape", "dtype"]) -> list[str]:
    different = []
    for name in expected:
        wanted, got = (getattr(tensors.get(name), attribute, None) for tensors in (expected, found))
        if got is not None and got != wanted:
            different.append(f"{name} (expected {_plain(wanted)}, got {_plain(got)})")
    return different


def _plain(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value).removeprefix("torch.")


def _current_name(name: str) -> str:
    for start in NAME_STARTS:
        if name.startswith(start):
            return start + current_name(name.removeprefix(start))
    return name


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
