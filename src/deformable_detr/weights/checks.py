"""Whether tensors are those of a config: names, shapes, types, finite values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from deformable_detr.papers import Config, build_model

# Types by the names that safetensors has for them.
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}    # as which floats are stored
NAMES = {dtype: name for name, dtype in FLOATS.items()} | {torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL"}
LARGEST = 1e18      # of a weight: the square of a greater one overflows float32


@dataclass(frozen=True)
class Layout:
    """Shape and type of a tensor."""

    shape: tuple[int, ...]
    dtype: str                  # "F32"

    @classmethod
    def of(cls, tensor: Tensor) -> "Layout":
        return cls(tuple(tensor.shape), NAMES.get(tensor.dtype, str(tensor.dtype)))


def check_layouts(config: Config, found: Mapping[str, Layout]) -> None:
    """Raise ValueError if names, shapes or types are not those of the config's model.

    The model is built without memory for its tensors, however large the config is.
    """
    # Every layer and level has tensors of its own.
    if max(config.num_encoder_layers, config.num_decoder_layers, getattr(config, "num_levels", 1)) > len(found):
        raise ValueError(f"the config asks for more layers than its {len(found)} tensors can fill")
    try:
        with torch.device("meta"), _NoRandomNumbers():
            skeleton = build_model(config)
    except Exception as error:   # the header may name any backbone of timm, and those raise all kinds of errors
        raise ValueError(f"no model can be built from its config: {error}") from error
    expected = {name: Layout.of(tensor) for name, tensor in skeleton.state_dict().items()}
    problems = {"missing": [name for name in expected if name not in found],
                "unexpected": [name for name in found if name not in expected],
                "of another shape": [f"{name} (expected {wanted.shape}, got {found[name].shape})"
                                     for name, wanted in expected.items()
                                     if name in found and found[name].shape != wanted.shape],
                "of another type": [f"{name} (expected {' or '.join(_stored_as(wanted))}, got {found[name].dtype})"
                                    for name, wanted in expected.items()
                                    if name in found and found[name].dtype not in _stored_as(wanted)]}
    if any(problems.values()):
        raise ValueError("tensors " + "; ".join(f"{kind}: {_first_few(names)}"
                                                for kind, names in problems.items() if names))


def check_values(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Raise ValueError, which names the tensor, for values that are not finite or too large to compute with."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            low, high = (float(bound) for bound in tensor.detach().aminmax())
            if not -LARGEST <= low <= high <= LARGEST:   # NaN neither
                raise ValueError(f"tensor {name}: expected finite numbers up to {LARGEST:g}, got {low:g}..{high:g}")


class _NoRandomNumbers(TorchFunctionMode):
    """Leaves tensors as they are: to draw into one without memory, torch would import its compiler, for a second."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):    # of Tensor and of torch.nn.init
            return (args or [kwargs["tensor"]])[0]
        return func(*args, **(kwargs or {}))


def _stored_as(layout: Layout) -> tuple[str, ...]:
    """The types as which a file may hold a tensor."""
    return tuple(FLOATS) if layout.dtype in FLOATS else (layout.dtype,)


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
