"""Public names of a package, each imported at its first use: torch alone takes seconds."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def lazy_names(homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package; `homes` maps each module to the names it has, apart by spaces."""
    modules = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"no attribute {name!r}; there are {', '.join(modules)}")
        with _no_collections():
            return getattr(import_module(modules[name]), name)

    return get, lambda: sorted(modules)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Without looking for garbage among half a million new objects, all of which stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
