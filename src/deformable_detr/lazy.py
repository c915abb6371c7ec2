"""Public names of a package, each imported at its first use: torch alone takes seconds."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package; `homes` maps each module to the names it has, apart by spaces."""
    modules = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"no attribute {name!r}; there are {', '.join(modules)}")
        return getattr(import_module(modules[name]), name)

    return get, lambda: sorted(modules)
