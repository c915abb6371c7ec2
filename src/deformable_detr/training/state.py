"""The state of a training as one safetensors file: tensors by name, all else as JSON in its header. No pickle."""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as serialise
from torch import Tensor

from deformable_detr.criterion.matching import NonFiniteError
from deformable_detr.files import write_whole
from deformable_detr.training.tensors import current_names, not_finite

FORMAT = "deformable-detr training 2"
FORMER_FORMAT = "deformable-detr training 1"    # without a checksum, and with the status under another name


@dataclass
class Averages:
    """Running means of the losses of an epoch."""

    steps: int = 0
    total: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    def add(self, total: float, parts: dict[str, float]) -> None:
        """Take one step's losses. Raises ValueError for other parts than those of the steps before."""
        if self.steps and self.parts.keys() != parts.keys():
            different = sorted(self.parts.keys() ^ parts.keys())
            raise ValueError(f"losses: expected the same in every step of an epoch, got a difference in {different}")
        self.steps += 1
        self.total += (total - self.total) / self.steps
        old = self.parts or parts
        self.parts = {name: old[name] + (value - old[name]) / self.steps for name, value in parts.items()}


@dataclass
class RunStatus:
    """How far a training has come, and how well it has done."""

    epoch: int = 0                      # the current one, from 0
    step: int = 0                       # completed steps of this epoch
    averages: Averages = field(default_factory=Averages)    # over these steps
    best_ap: float = -1.0               # -1 before the first evaluation
    epochs_since_best: int = 0

    def next_epoch(self) -> None:
        """Move to the beginning of the next epoch."""
        self.epoch, self.step, self.averages = self.epoch + 1, 0, Averages()


@dataclass(frozen=True)
class TrainingState:
    """All that a training needs to continue where it was."""

    status: RunStatus
    tensors: dict[str, Tensor]      # weights, optimizer, average: training/tensors.py names them
    scaler: dict[str, Any]          # of fp16's loss scaling; empty without


def write_state(path: Path, state: TrainingState) -> None:
    """Write a state; an older one stays whole until the new one is.

    Raises OSError where it cannot, NonFiniteError for a tensor that is not finite: the older one stays then.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    if (name := not_finite(tensors)) is not None:
        raise NonFiniteError(f"{name}, after this step,")
    header = {"format": FORMAT, "status": json.dumps(asdict(state.status)), "scaler": json.dumps(state.scaler)}
    header["checksum"] = checksum(tensors, header)
    write_whole(path, serialise(tensors, header))


def read_state(path: Path) -> TrainingState:
    """Read what `write_state` wrote, or the release before it.

    Raises FileNotFoundError if there is no file, ValueError if it is another one or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") not in (FORMAT, FORMER_FORMAT):
                raise ValueError(f"expected the format {FORMAT!r}, got {header.get('format')!r}")
            # Copied, since safetensors maps the file: writing into it would change the tensors.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (not a dict)
        if header["format"] == FORMAT and header["checksum"] != checksum(tensors, header):
            raise ValueError("its content is not what was written: the checksum differs")
        status = json.loads(header["status" if header["format"] == FORMAT else "standing"])
        return TrainingState(_status(status), current_names(tensors), _scaler(json.loads(header["scaler"])))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: not the state of a training, or damaged ({error})") from error


def checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """CRC-32 over the names, types, shapes and bits of all tensors, and over status and scaler."""
    total = zlib.crc32(json.dumps([header["status"], header["scaler"]]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode(), total)
        total = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def _status(values: dict[str, Any]) -> RunStatus:
    """From a file. Raises ValueError or TypeError for what no training can have come to."""
    averages = Averages(**values.pop("averages"))
    status = RunStatus(averages=averages, **values)
    counts = {"epoch": status.epoch, "step": status.step, "epochs_since_best": status.epochs_since_best,
              "averages.steps": averages.steps}
    for name, count in counts.items():
        if type(count) is not int or not 0 <= count < 2**63:
            raise ValueError(f"{name}: expected a whole number of 0 or more, got {count!r:.80}")
    if status.epochs_since_best > status.epoch:
        raise ValueError(f"epochs_since_best: expected at most {status.epoch}, got {status.epochs_since_best}")
    if averages.steps != status.step:
        raise ValueError(f"averages.steps: expected {status.step}, the steps of the epoch, got {averages.steps}")
    if not isinstance(averages.parts, dict):
        raise ValueError(f"averages.parts: expected the losses by name, got {averages.parts!r:.80}")
    numbers = {"best_ap": status.best_ap, "averages.total": averages.total}
    numbers |= {f"averages.parts.{name}": value for name, value in averages.parts.items()}
    for name, number in numbers.items():
        if not isinstance(number, float) or not math.isfinite(number):
            raise ValueError(f"{name:.80}: expected a finite number, got {number!r:.80}")
    if not -1 <= status.best_ap <= 1:
        raise ValueError(f"best_ap: expected -1 to 1, got {status.best_ap}")
    return status


def _scaler(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"scaler: expected settings by name, got {values!r:.80}")
    for name, number in values.items():
        if type(number) not in (int, float) or not math.isfinite(number) or number < 0:
            raise ValueError(f"scaler.{name:.80}: expected a finite number of 0 or more, got {number!r:.80}")
    return values
