"""What of a training depends on the machine: devices and processes, trackers, memory; and what stays as it is."""

import importlib.util
from functools import partial
from pathlib import Path

import torch
import torch.distributed as distributed
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from deformable_detr.papers import DeformableDETR, ModelConfig
from deformable_detr.training.recipe import Recipe


def build_accelerator(recipe: Recipe, folder: Path) -> Accelerator:
    """Devices, processes and precision, as the launcher, the machine and the recipe have it.

    Raises ValueError for a tracker that is not installed.
    """
    for tracker in recipe.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise ValueError(f"trackers: {tracker} is not installed; pip install {tracker}")
    if recipe.deterministic:
        torch.use_deterministic_algorithms(True)
    # Accelerate lets processes without a GPU work together only when it is told that they are.
    on_cpu = not torch.accelerator.is_available()
    return Accelerator(mixed_precision=recipe.precision, cpu=on_cpu, log_with=list(recipe.trackers) or None,
                       project_dir=folder)


def freeze(model: DeformableDETR, parts: tuple[str, ...]) -> None:
    """Train no parameter whose name begins with one of `parts`.

    Raises ValueError where none does, or where nothing is left to train.
    """
    for part in parts:
        named = [parameter for name, parameter in model.named_parameters() if name.startswith(part)]
        if not (part and named):   # every name begins with nothing
            known = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"freeze: expected the beginning of a parameter's name, such as {known}, got {part!r}")
        for parameter in named:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freeze: expected something to be left to train, got all of the model: {', '.join(parts)}")


def recompute_activations(model: DeformableDETR) -> None:
    """Keep of each transformer layer only its input, and compute the rest again in the backward pass."""
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def shard(model: DeformableDETR, accelerator: Accelerator) -> DeformableDETR:
    """Spread weights, gradients and the optimizer's memory over the processes (PyTorch's FSDP2).

    Raises ValueError where there is one process only.
    """
    if accelerator.num_processes == 1:
        raise ValueError("shard: needs several processes, got one; start them with torchrun")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for part in (model.backbone, *model.encoder.layers, *model.decoder.layers, model):
        fully_shard(part, mesh=mesh)
    return model


def gathered(model: nn.Module) -> DeformableDETR:
    """The whole of a model that is spread over the processes, in each of them; all must call this."""
    config: ModelConfig = model.config  # type: ignore[assignment]
    whole = DeformableDETR(config)
    whole.load_state_dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))
    return whole.to(next(model.parameters()).device)


def reason_to_stop(error: Exception) -> str | None:
    """What a user can read of an error that ended a training; None where it is a fault of the program."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | ArithmeticError | OSError):   # a bad image, a NaN, a full disk
        return text
    if is_out_of_memory(error):
        return f"out of memory ({text or 'MemoryError'}): lower --batch-size or --size, or set --recompute"
    if "DataLoader worker" in text:
        return f"a process that reads images was ended by the system ({text}): lower --num-workers"
    if distributed.is_available() and distributed.is_initialized() and isinstance(error, RuntimeError):
        return f"the processes of this training have lost one another ({text}): see what the others say"
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU, Python, or PyTorch on the CPU, which has no error of its own for that, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
