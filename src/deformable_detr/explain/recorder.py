"""Stages of the way from image to box, noted by hooks while the model runs as ever."""

import inspect
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

import deformable_detr

PACKAGE = Path(deformable_detr.__file__).parent


@dataclass(frozen=True)
class Stage:
    """What is left of one tensor: where it was made, how it was shaped, how far its values reach."""

    file: str                  # of the package, as in "model/pyramid.py"
    part: str                  # which use of that file, as in "encoder layer 0", or nothing
    name: str
    axes: str                  # a word for each dimension, after the legend in structures.py
    shape: tuple[int, ...]
    dtype: str
    low: float                 # the least value and the greatest; NaN where any value is
    high: float
    notes: tuple[str, ...]     # lines of what else is worth knowing

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the bounds as `min` and `max`; None stands for NaN and infinity."""
        values = asdict(self)
        for name, bound in (("min", values.pop("low")), ("max", values.pop("high"))):
            values[name] = bound if isfinite(bound) else None
        return values


class Recorder:
    """Collects `stages` in the order in which they come about; at the end of its `with` block no hook is left.

    A `source` is the part of the model, or the function, whose file a stage belongs to.
    """

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._hooks = ExitStack()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def add(self, source: Any, name: str, axes: str, values: Shaped[Tensor | np.ndarray, "..."],
            *notes: str, part: str = "") -> None:
        """Record `values`, of which there is at least one."""
        tensor = torch.as_tensor(values)
        low, high = (float(bound) for bound in tensor.aminmax())
        self.stages.append(Stage(_file_of(source), part, name, axes, tuple(tensor.shape),
                                 str(tensor.dtype).removeprefix("torch."), low, high, notes))

    def before(self, module: nn.Module, tell: Callable[[dict[str, Any]], None]) -> None:
        """Call `tell` with the arguments of `module`, by name, whenever it is about to run."""
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tell(inspect.signature(module.forward).bind(*args, **kwargs).arguments)

        self._hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(self, module: nn.Module, tell: Callable[[Any], None]) -> None:
        """Call `tell` with what `module` returns, whenever it has run."""
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            tell(output)   # whatever it returns is not handed on: torch would put that in the output's place

        self._hooks.callback(module.register_forward_hook(hook).remove)

    def output(self, module: nn.Module, source: Any, name: str, axes: str, *notes: str,
               part: str = "", last: tuple[int, ...] = ()) -> None:
        """Record the one tensor that `module` returns, its last dimension divided into `last`."""
        self.after(module, lambda values: self.add(
            source, name, axes, values.unflatten(-1, last) if last else values, *notes, part=part))


def _file_of(source: Any) -> str:
    return Path(str(sys.modules[source.__module__].__file__)).relative_to(PACKAGE).as_posix()
