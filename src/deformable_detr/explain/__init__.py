"""What every stage of the model saw."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deformable_detr.explain.recorder import Stage
    from deformable_detr.explain.tracing import trace, trace_pictures

__all__ = ["Stage", "trace", "trace_pictures"]

_HOMES = {"Stage": "recorder", "trace": "tracing", "trace_pictures": "tracing"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
