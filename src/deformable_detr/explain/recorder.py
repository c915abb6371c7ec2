"""Stages from image to box, recorded while the model runs: by the statements that make them, or by hooks."""

import inspect
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

import deformable_detr
from deformable_detr.explain.reasons import reason_for
from deformable_detr.explain.rewriting import Site, rewritten, site_of

PACKAGE = Path(deformable_detr.__file__).parent

Report = Callable[[Any], None]


@dataclass(frozen=True)
class Stage:
    """What is kept of a tensor: the statement that made it, its shape and its range."""

    source: str                # the class or function that computed it, such as "PyramidBuilder"
    file: str                  # where that is now, such as "model/pyramid.py"
    line: int                  # of the statement in that file
    part: str                  # which use of that file, such as "encoder layer 0", or nothing
    name: str
    axes: str                  # a word for each dimension, see the legend in structures.py
    shape: tuple[int, ...]
    dtype: str
    low: float                 # the least and the greatest value; NaN if any value is
    high: float
    milliseconds: float | None      # since the stage before; None: made by the same statement, or before the trace
    reason: str                # what happened and why, with the section of the paper
    notes: tuple[str, ...]     # lines
    values: Tensor | None = field(default=None, repr=False, compare=False)     # the tensor, if it was to be kept

    @property
    def is_finite(self) -> bool:
        """Whether all values are."""
        return isfinite(self.low) and isfinite(self.high)

    @property
    def path(self) -> Path:
        """The file on this machine."""
        return PACKAGE / self.file

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the bounds as `min` and `max`; None stands for NaN and infinity."""
        values = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "values"}
        for name, bound in (("min", values.pop("low")), ("max", values.pop("high"))):
            values[name] = bound if isfinite(bound) else None
        return values


class Recorder:
    """Collects `stages` in the order in which they are computed; leaves the model at the end of its `with` block.

    `stop` is asked once for each stage: if it answers True, `breakpoint()` is called on the line that made the stage,
    where the local variable `tensor` holds it. With `keep` the stages have their tensors.
    """

    def __init__(self, stop: Callable[[Stage], bool] = lambda stage: False, *, keep: bool = False) -> None:  # noqa: ARG005
        self.stages: list[Stage] = []
        self._stop, self._keep = stop, keep
        self._undo = ExitStack()
        self._site: Site | None = None                      # whose value is being reported
        self._milliseconds: float | None = None             # that it took
        self._clock = time.perf_counter()
        self._stopping: list[tuple[Site, Tensor]] = []

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def start_clock(self) -> None:
        """What has been done until now belongs to no stage."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._clock = time.perf_counter()

    def watch(self, module: nn.Module, reports: Mapping[str, Report], method: str = "forward",
              names: Mapping[str, Any] | None = None) -> None:
        """Report values that a method makes, named as in `rewriting.Site`; other instances are not concerned."""
        copy = self.function(getattr(type(module), method), reports, names)
        assert method not in vars(module), f"{method} is watched already"
        setattr(module, method, MethodType(copy, module))
        self._undo.callback(delattr, module, method)

    def function(self, function: Callable[..., Any], reports: Mapping[str, Report],
                 names: Mapping[str, Any] | None = None) -> FunctionType:
        """A copy of a function that reports values it makes; see `rewriting.rewritten`."""
        return rewritten(function, reports, lambda site, value: self._made(site, value, reports), self._stops, names)

    def before_trace(self, function: Callable[..., Any], value: str, report: Callable[[], None]) -> None:
        """Report what `function` has made of its `value` before anything was watched."""
        self._site = site_of(function, value)
        report()
        self._site = None

    def add(self, source: Any, name: str, axes: str, values: Shaped[Tensor | np.ndarray, "..."],
            *notes: str, part: str = "") -> None:
        """Record `values`, inside a report; there must be at least one."""
        assert self._site is not None, "stages are recorded where their values are made"
        tensor = torch.as_tensor(values).detach()
        low, high = (float(bound) for bound in tensor.aminmax())
        word = getattr(source, "__name__", type(source).__name__)
        stage = Stage(word, Path(self._site.file).relative_to(PACKAGE).as_posix(), self._site.line, part, name, axes,
                      tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), low, high, self._milliseconds,
                      reason_for(source, name), notes, tensor if self._keep else None)
        self._milliseconds = None
        self.stages.append(stage)
        if self._stop(stage):
            self._stopping.append((self._site, tensor))

    def _made(self, site: Site, value: Any, reports: Mapping[str, Report]) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._site, self._milliseconds = site, (time.perf_counter() - self._clock) * 1000
        reports[site.value](value)
        self._site = self._milliseconds = None
        self._clock = time.perf_counter()

    def _stops(self, site: Site) -> list[Tensor]:
        """The tensors of a site at which to stop, once."""
        tensors = [tensor for other, tensor in self._stopping if other == site]
        self._stopping = [(other, tensor) for other, tensor in self._stopping if other != site]
        return tensors

    def before(self, module: nn.Module, report: Callable[[dict[str, Any]], None]) -> None:
        """Call `report` with the arguments of `module`, by name, before each of its calls."""
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            report(inspect.signature(module.forward).bind(*args, **kwargs).arguments)

        self._undo.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
