"""Import torchvision and timm without torch._dynamo, which takes a second and which only torch.compile needs."""

import importlib
import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch._compile import _disable_dynamo

UTILITIES = "torch._dynamo.utils"
_one_at_a_time = threading.RLock()


@contextmanager
def dynamo_when_used() -> Iterator[None]:
    """What is imported in this block imports torch._dynamo only when it uses it.

    torchvision and timm decorate with `torch.compiler.disable`, and torchvision takes `is_compile_supported` out of
    `torch._dynamo.utils`. Both wait for their first call here. For any other name the import is made at once.
    """
    with _one_at_a_time:
        if "torch._dynamo" in sys.modules:
            yield
            return
        disable, utilities = torch.compiler.disable, _Utilities(UTILITIES)

        def disable_when_called(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
            if not inspect.isfunction(fn):
                return disable(fn, recursive, reason=reason)
            return _disable_dynamo(fn, recursive)     # with which torch decorates its own functions

        torch.compiler.disable = disable_when_called
        sys.modules[UTILITIES] = utilities
        try:
            yield
        finally:
            torch.compiler.disable = disable
            utilities.remove()


class _Utilities(ModuleType):
    """In place of `torch._dynamo.utils`, which it imports for any name but that of its function."""

    def is_compile_supported(self, device_type: Any) -> Any:
        return self._imported().is_compile_supported(device_type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):       # asked for by the machinery of imports
            raise AttributeError(name)
        return getattr(self._imported(), name)

    def _imported(self) -> ModuleType:
        self.remove()
        return importlib.import_module(UTILITIES)

    def remove(self) -> None:
        """Leave the place to the module itself."""
        if sys.modules.get(UTILITIES) is self:
            del sys.modules[UTILITIES]
