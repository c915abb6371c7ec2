"""Installed versions, devices, backends of the op, and a self-test of each backend against the definition."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter

import torch
from torch import Tensor

from deformable_detr import __version__, ops
from deformable_detr.weights.sources import packaged_weights

PACKAGES = ("torch", "torchvision", "timm", "numba", "triton", "numpy", "pillow", "safetensors", "accelerate",
            "faster-coco-eval", "onnxruntime", "openvino")
LEVEL_SHAPES = ((7, 5), (4, 3), (1, 1))   # odd, not square: mixed-up axes show
CHANNELS, POINTS = 32, 4                  # as in the published model, so that its kernels are compiled and no others
INPUTS = ("value", "locations", "weights")
TOLERANCE = 1e-4                          # in float32; outputs reach 4 and gradients 0.6
HOMES = {"numba": "cpu", "triton": "cuda"}   # the one device that a backend runs on; others run anywhere
BACKENDS = {"reference": "plain PyTorch, on any device", "gather": "plain PyTorch, for export",
            "numba": "compiled for the CPU", "triton": "compiled for NVIDIA and AMD GPUs"}


def describe_system() -> Iterator[tuple[str, str]]:
    """Pairs of a name and its value: versions, platform, devices, backends of the op, packaged weights.

    Nothing is compiled for it.
    """
    yield "deformable-detr", __version__
    yield "python", f"{platform.python_version()} ({sys.platform}, {platform.machine()})"
    for package in PACKAGES:
        yield package, _version(package)
    yield "devices", ", ".join(_name_device(device) for device in _devices())
    yield "threads", str(torch.get_num_threads())
    for backend, obstacle in ops.available_backends().items():
        state = f"not available: {obstacle}" if obstacle else "available"
        yield f"op backend {backend}", f"{state} ({BACKENDS[backend]})"
    weights = packaged_weights()
    yield "demo weights", f"{weights.stat().st_size / 1e6:.1f} MB" if weights else "not packaged"


def check_op() -> Iterator[tuple[str, str | None]]:
    """Compare each backend on each device with the definition on the CPU.

    Yields its name, and what is wrong with it or None. The first run on a machine compiles kernels, and logs that.
    """
    usable = [backend for backend, obstacle in ops.available_backends().items() if obstacle is None]
    expected = _outputs("reference", "cpu")
    for device in _devices():
        for backend in usable:
            if HOMES.get(backend, device) != device or (backend, device) == ("reference", "cpu"):
                continue
            start = perf_counter()
            problem = _compare(expected, backend, device)
            yield f"{backend} on {device} ({perf_counter() - start:.1f} s)", problem


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [device for device, present in available.items() if present]


def _name_device(device: str) -> str:
    if device != "cuda":
        return device
    return ", ".join(f"cuda:{index} {torch.cuda.get_device_name(index)}"
                     for index in range(torch.cuda.device_count()))


def _compare(expected: list[Tensor], backend: str, device: str) -> str | None:
    """What differs by more than the tolerance, or the error; None if nothing does."""
    try:
        results = _outputs(backend, device)
    except Exception as error:   # whatever a broken installation raises is the finding
        return " ".join(f"{type(error).__name__}: {error}".split())
    for name, result, right in zip(("output", *INPUTS), results, expected, strict=True):
        difference = float((result - right).abs().max())
        if not difference <= TOLERANCE:   # written like this, NaN fails too
            kind = "output" if name == "output" else f"gradient of {name}"
            return f"the {kind} differs by {difference:.2g}"
    return None


def _outputs(backend: str, device: str) -> list[Tensor]:
    """Output and gradients, moved to the CPU, for inputs that are always the same."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(device).requires_grad_()

    num_tokens = sum(height * width for height, width in LEVEL_SHAPES)
    value = draw(2, num_tokens, 3, CHANNELS)
    locations = draw(2, 4, 3, len(LEVEL_SHAPES), POINTS, 2)
    weights = draw(2, 4, 3, len(LEVEL_SHAPES), POINTS)
    with ops.use_backend(backend):
        output = ops.ms_deform_attn(value, LEVEL_SHAPES, locations, weights)
        output.square().mean().backward()
    return [tensor.detach().cpu() for tensor in (output, value.grad, locations.grad, weights.grad)
            if tensor is not None]
