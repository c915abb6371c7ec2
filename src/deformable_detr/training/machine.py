"""What a training takes from the machine: devices and processes, precision, trackers; and how memory is saved."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.distributed as distributed
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import gather_object
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from deformable_detr.model.network import Network
from deformable_detr.papers import build_model
from deformable_detr.training.recipe import Recipe


@contextmanager
def accelerator_for(recipe: Recipe, folder: Path) -> Iterator[Accelerator]:
    """Devices, processes and precision for one training; trackers write into `folder`.

    Afterwards the process is as it was before, so that trainings in one process do not affect each other.
    Raises ValueError for a tracker that is not installed.
    """
    for tracker in recipe.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise ValueError(f"trackers: {tracker} is not installed; pip install {tracker}")
    with _deterministic(recipe.deterministic), _own_accelerate_state():
        # Accelerate connects processes without a GPU only with cpu=True.
        on_cpu = not torch.accelerator.is_available()
        yield Accelerator(mixed_precision=recipe.precision, cpu=on_cpu, log_with=list(recipe.trackers) or None,
                          project_dir=folder)


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """PyTorch's deterministic algorithms, if wanted."""
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


@contextmanager
def _own_accelerate_state() -> Iterator[None]:
    """Accelerate keeps the first precision and the first device of a process for all later uses: set them aside."""
    states = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    before = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        yield
    finally:
        for state, values in zip(states, before, strict=True):
            state.clear()
            state.update(values)


def raise_together(accelerator: Accelerator, error: Exception | None) -> None:
    """Raise an error of any process in all of them; otherwise the others would wait for it."""
    errors = [error] if accelerator.num_processes == 1 else gather_object([error])
    for found in errors:
        if found is not None:
            raise found


def freeze(model: Network, parts: tuple[str, ...]) -> None:
    """Train no parameter whose name begins with one of `parts`.

    Raises ValueError if no name does, or if nothing is left to train.
    """
    for part in parts:
        named = [parameter for name, parameter in model.named_parameters() if name.startswith(part)]
        if not (part and named):   # every name begins with an empty text
            known = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"freeze: expected the beginning of a parameter's name, such as {known}, got {part!r}")
        for parameter in named:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freeze: expected something to be left to train, got all of the model: {', '.join(parts)}")


def recompute_activations(model: Network) -> None:
    """Keep only the input of each transformer layer, and recompute its activations in the backward pass."""
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def shard(model: Network, accelerator: Accelerator) -> Network:
    """Spread weights, gradients and optimizer state over the processes (PyTorch's FSDP2).

    Raises ValueError if there is only one process.
    """
    if accelerator.num_processes == 1:
        raise ValueError("shard: expected several processes, as torchrun starts them, got one")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for part in (model.backbone, *model.encoder.layers, *model.decoder.layers, model):
        fully_shard(part, mesh=mesh)
    return model


def gathered(model: Network) -> Network:
    """The whole of a sharded model, in each process; all processes must call this."""
    whole = build_model(model.config)
    whole.load_state_dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))
    return whole.to(next(model.parameters()).device)


def reason_to_stop(error: Exception) -> str | None:
    """An error that ended a training as one line for the user; None for a bug of the program."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | ArithmeticError | OSError):   # a bad image, a NaN, a full disk
        return text
    if is_out_of_memory(error):
        return f"out of memory ({text or 'MemoryError'}): lower batch_size or the size of the images, or set recompute"
    if "DataLoader worker" in text:
        return f"a process that reads images was killed by the system ({text}): lower num_workers"
    if distributed.is_available() and distributed.is_initialized() and isinstance(error, RuntimeError):
        return f"the processes of this training have lost one another ({text}): see what the others print"
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: on a GPU, in Python, or in PyTorch on the CPU, which has no error type for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
