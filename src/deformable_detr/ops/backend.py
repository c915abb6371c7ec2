"""Which backend computes the op: chosen by the caller for a stretch of code, or by the device."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_chosen: ContextVar[str] = ContextVar("deformable_attention_backend", default="auto")


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute the op with one backend inside the `with` block, in this thread (or asyncio task) only.

    Args:
        name: "reference" (plain PyTorch, any device), "numba" (CPU), "triton" (GPU of CUDA or ROCm, no float64), or
            "auto": Numba for tensors on the CPU, Triton on such a GPU, the reference elsewhere.

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
    """Every backend, with None where it can be used here, or else the reason why not."""
    no_numba = None if importlib.util.find_spec("numba") else "the package numba is not installed"
    no_triton = None if importlib.util.find_spec("triton") else "the package triton is not installed"
    if not torch.cuda.is_available():
        no_triton = "there is no GPU of CUDA or ROCm"
    return {"reference": None, "numba": no_numba, "triton": no_triton}


def choose_backend(device_type: str, dtype: torch.dtype) -> str:
    """The backend for tensors of this dtype on this type of device.

    Raises:
        ValueError: the caller asked for a backend that cannot take them.
    """
    chosen = _chosen.get()
    if chosen == "auto":
        if device_type == "cuda" and dtype != torch.float64 and importlib.util.find_spec("triton"):
            return "triton"
        return "numba" if device_type == "cpu" else "reference"
    if chosen == "numba" and device_type != "cpu":
        raise ValueError(f"backend 'numba' runs on the CPU, but the tensors are on {device_type!r}")
    if chosen == "triton" and (device_type != "cuda" or dtype == torch.float64):
        raise ValueError(f"backend 'triton' takes float32, float16 and bfloat16 on a GPU, but the tensors are "
                         f"{dtype} on {device_type!r}")
    return chosen
