"""Where a training stands, as one safetensors file: tensors by name, all else as JSON in its header. No pickle."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from deformable_detr.files import write_whole

FORMAT = "deformable-detr training 1"


@dataclass
class Averages:
    """Running means of the losses of an epoch."""

    steps: int = 0
    total: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    def add(self, total: float, parts: dict[str, float]) -> None:
        """Take one step's losses."""
        self.steps += 1
        self.total += (total - self.total) / self.steps
        old = self.parts or parts
        self.parts = {name: old[name] + (value - old[name]) / self.steps for name, value in parts.items()}


@dataclass
class Standing:
    """How far a training has come, and how well it did."""

    epoch: int = 0                      # in which it is, counted from 0
    step: int = 0                       # steps of this epoch that are done
    averages: Averages = field(default_factory=Averages)    # over these
    best_ap: float = -1.0
    epochs_since_best: int = 0

    def next_epoch(self) -> None:
        """Move on to the beginning of the next epoch."""
        self.epoch, self.step, self.averages = self.epoch + 1, 0, Averages()


def write_state(path: Path, standing: Standing, tensors: dict[str, Tensor], scaler: dict[str, Any]) -> None:
    """Write a state; an older one of this name stays whole until the new one is. Raises OSError where it cannot."""
    header = {"format": FORMAT, "standing": json.dumps(asdict(standing)), "scaler": json.dumps(scaler)}
    write_whole(path, serialise({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, header))


def read_state(path: Path) -> tuple[Standing, dict[str, Tensor], dict[str, Any]]:
    """What `write_state` wrote: the standing, the tensors, the state of fp16's loss scaler.

    Raises FileNotFoundError when there is no file, ValueError when it is another one or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError(f"expected the format {FORMAT!r}, got {header.get('format')!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            return _standing(json.loads(header["standing"])), tensors, json.loads(header["scaler"])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the state of a training, or damaged ({error})") from error


def _standing(values: dict[str, Any]) -> Standing:
    """From what a file says. Raises ValueError or TypeError where that is none, or no training could be there."""
    averages = Averages(**values.pop("averages"))
    standing = Standing(averages=averages, **values)
    counts = {"epoch": standing.epoch, "step": standing.step, "epochs_since_best": standing.epochs_since_best,
              "averages.steps": averages.steps}
    for name, count in counts.items():
        if type(count) is not int or not 0 <= count < 2**63:
            raise ValueError(f"{name}: expected a whole number of 0 or more, got {count!r:.80}")
    if not isinstance(averages.parts, dict):
        raise ValueError(f"averages.parts: expected the losses by name, got {averages.parts!r:.80}")
    numbers = {"best_ap": standing.best_ap, "averages.total": averages.total}
    numbers |= {f"averages.parts.{name}": value for name, value in averages.parts.items()}
    for name, number in numbers.items():
        if not isinstance(number, float):
            raise ValueError(f"{name:.80}: expected a number, got {number!r:.80}")
    return standing


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, `prefix` in front of each name."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def whole_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The model's weights and what the optimizer remembers of each, by name.

    Of a model that is spread over processes, all must call this; the first gets the state, the others nothing.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: Any = get_model_state_dict(model, options=options)
    memory: Any = get_optimizer_state_dict(model, optimizer, options=options).get("state", {})
    tensors = prefixed("model/", weights)
    for name, parts in memory.items():
        tensors |= prefixed(f"optimizer/{name}/", parts)
    return tensors


def load_whole_state(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give model and optimizer back what `whole_state` took; the optimizer's settings stay as they are.

    Raises RuntimeError where the tensors belong to another model.
    """
    options = StateDictOptions(full_state_dict=True)
    weights: Any = without_prefix("model/", tensors)
    set_model_state_dict(model, weights, options=options)
    memory: Any = {}
    for key, tensor in without_prefix("optimizer/", tensors).items():
        name, part = key.rsplit("/", 1)
        memory.setdefault(name, {})[part] = tensor
    settings = get_optimizer_state_dict(model, optimizer, options=options)["param_groups"]
    set_optimizer_state_dict(model, optimizer, {"state": memory, "param_groups": settings}, options=options)
