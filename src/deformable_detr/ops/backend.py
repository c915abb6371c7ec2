"""Which backend computes the op: chosen by the caller for a block of code, or by the device."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

_chosen: ContextVar[str] = ContextVar("deformable_attention_backend", default="auto")


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute the op with one backend inside the `with` block, in this thread or asyncio task only.

    Args:
        name: "reference" (plain PyTorch, any device), "gather" (the same without grid_sample, for export), "numba"
            (CPU), "triton" (GPU with CUDA or ROCm, no float64), or "auto": Numba for tensors on the CPU, Triton on such
            a GPU, the reference elsewhere and under torch.func and forward-mode differentiation.

    Raises:
        ValueError: the name is unknown, or the backend is not available here.
    """
    backends = available_backends()
    usable = ["auto", *(backend for backend, reason in backends.items() if reason is None)]
    if name != "auto" and name not in backends:
        raise ValueError(f"unknown backend {name!r}; expected one of {', '.join(usable)}")
    if name not in usable:
        raise ValueError(
            f"backend {name!r} is not available: {backends[name]}; expected one of {', '.join(usable)}"
        )
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def available_backends() -> dict[str, str | None]:
    """Every backend, with None if it can be used here, or the reason why not."""
    no_numba = None if importlib.util.find_spec("numba") else "the package numba is not installed"
    no_triton = None if importlib.util.find_spec("triton") else "the package triton is not installed"
    if not torch.cuda.is_available():
        no_triton = "PyTorch finds no GPU with CUDA or ROCm"
    return {"reference": None, "gather": None, "numba": no_numba, "triton": no_triton}


def choose_backend(value: Tensor, *others: Tensor) -> str:
    """The backend for an op on these tensors; device and dtype are those of `value`.

    Raises:
        ValueError: the caller asked for a backend that cannot take them.
    """
    chosen = _chosen.get()
    if chosen in ("reference", "gather"):
        return chosen
    device, dtype = value.device.type, value.dtype
    if _is_transformed(value, *others):
        if chosen == "auto":
            return "reference"
        raise ValueError(f"backend {chosen!r} computes ordinary gradients only; expected 'reference' or 'auto' under "
                         "torch.func and forward-mode differentiation")
    if chosen == "auto":
        if device == "cuda" and dtype != torch.float64 and importlib.util.find_spec("triton"):
            return "triton"
        return "numba" if device == "cpu" else "reference"
    if chosen == "numba" and device != "cpu":
        raise ValueError(f"backend 'numba' runs on the CPU, but the tensors are on {device!r}")
    if chosen == "triton" and (device != "cuda" or dtype == torch.float64):
        raise ValueError(f"backend 'triton' takes float32, float16 and bfloat16 on a GPU, but the tensors are "
                         f"{dtype} on {device!r}")
    return chosen


def _is_transformed(*tensors: Tensor) -> bool:
    """Whether a transform of torch.func is active, or a tensor has a tangent for forward-mode differentiation."""
    if torch._C._are_functorch_transforms_active():  # torch has no public way to ask
        return True
    return any(unpack_dual(tensor).tangent is not None for tensor in tensors)
