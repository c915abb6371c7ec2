"""Stages from image to box, recorded by hooks while the model runs."""

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
    """What is kept of a tensor: where it was computed, its shape and its range."""

    source: str                # the class or function that computed it, such as "PyramidBuilder"
    file: str                  # where that is now, such as "model/pyramid.py"
    part: str                  # which use of that file, such as "encoder layer 0", or nothing
    name: str
    axes: str                  # a word for each dimension, see the legend in structures.py
    shape: tuple[int, ...]
    dtype: str
    low: float                 # the least and the greatest value; NaN if any value is
    high: float
    notes: tuple[str, ...]     # lines

    @property
    def is_finite(self) -> bool:
        """Whether all values are."""
        return isfinite(self.low) and isfinite(self.high)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the bounds as `min` and `max`; None stands for NaN and infinity."""
        values = asdict(self)
        for name, bound in (("min", values.pop("low")), ("max", values.pop("high"))):
            values[name] = bound if isfinite(bound) else None
        return values


class Recorder:
    """Collects `stages` in the order in which they are computed; removes its hooks at the end of its `with` block.

    A `source` is the part of the model, or the function, that computes a stage.
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
        """Record `values`; there must be at least one."""
        tensor = torch.as_tensor(values)
        low, high = (float(bound) for bound in tensor.aminmax())
        self.stages.append(Stage(_name_of(source), _file_of(source), part, name, axes, tuple(tensor.shape),
                                 str(tensor.dtype).removeprefix("torch."), low, high, notes))

    def before(self, module: nn.Module, report: Callable[[dict[str, Any]], None]) -> None:
        """Call `report` with the arguments of `module`, by name, before each of its calls."""
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            report(inspect.signature(module.forward).bind(*args, **kwargs).arguments)

        self._hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(self, module: nn.Module, report: Callable[[Any], None]) -> None:
        """Call `report` with what `module` returns, after each of its calls."""
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            report(output)   # its result is not returned: torch would take that for the module's output

        self._hooks.callback(module.register_forward_hook(hook).remove)

    def output(self, module: nn.Module, source: Any, name: str, axes: str, *notes: str,
               part: str = "", last: tuple[int, ...] = ()) -> None:
        """Record the tensor that `module` returns, its last dimension divided into `last`."""
        self.after(module, lambda values: self.add(
            source, name, axes, values.unflatten(-1, last) if last else values, *notes, part=part))


def _name_of(source: Any) -> str:
    return getattr(source, "__name__", type(source).__name__)


def _file_of(source: Any) -> str:
    return Path(str(sys.modules[source.__module__].__file__)).relative_to(PACKAGE).as_posix()
