"""How much memory a training step of the published detectors takes: `python benchmarks/training_memory.py`.

Measured: what a step on the CPU adds to the peak of a process that holds only the libraries. Computed, for a GPU, whose
kernels keep the same: weights, gradients, the optimizer's two averages, and all that the forward pass keeps for the
backward pass. What an allocator and cuDNN need beside that is not in it.
"""

import argparse
import resource
import subprocess
import sys

import torch
from torch import Tensor

from deformable_detr import DeformableDETR, ImageBatch, ModelConfig, Target
from deformable_detr.training import Recipe, SetLoss, build_optimizer
from deformable_detr.training.machine import recompute_activations

GIB = 2**30
NUM_OBJECTS = 10


def build(preset: str, recompute: bool) -> DeformableDETR:
    model = DeformableDETR(ModelConfig.preset(preset)).train()
    if recompute:
        recompute_activations(model)
    return model


def random_batch(size: tuple[int, int], images: int) -> tuple[ImageBatch, list[Target]]:
    targets = [Target(torch.randint(91, (NUM_OBJECTS,)), torch.rand(NUM_OBJECTS, 4) / 2 + 0.1) for _ in range(images)]
    return ImageBatch.from_images([torch.randn(3, *size) for _ in range(images)]), targets


def measured(preset: str, size: tuple[int, int], images: int, recompute: bool) -> float:
    """GiB that a step adds to the peak of this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = build(preset, recompute)
    optimizer = build_optimizer(model, Recipe())
    batch, targets = random_batch(size, images)
    SetLoss()(model(batch), targets).total.backward()
    optimizer.step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / GIB


def computed(preset: str, size: tuple[int, int], images: int, recompute: bool) -> float:
    """GiB of weights, gradients, averages and kept activations."""
    model = build(preset, recompute)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def keep_inputs(_: torch.nn.Module, inputs: tuple[object, ...]) -> None:
        for value in inputs:
            if isinstance(value, Tensor):
                keep(value)

    if recompute:   # which keeps the layers' inputs without autograd's knowledge
        for layer in [*model.encoder.layers, *model.decoder.layers]:
            layer.register_forward_pre_hook(keep_inputs)
    batch, targets = random_batch(size, images)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = SetLoss()(model(batch), targets)   # held until the tensors are counted
    weights = sum(parameter.nbytes for parameter in model.parameters())
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    del losses
    return (weights + 3 * trained + sum(kept.values())) / GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=6, metavar=("KIND", "PRESET", "HEIGHT", "WIDTH", "IMAGES", "RECOMPUTE"))
    one = parser.parse_args().one
    if one:
        kind, preset, height, width, images, recompute = one
        count = {"measured": measured, "computed": computed}[kind]
        print(count(preset, (int(height), int(width)), int(images), recompute == "yes"))
        return
    print("| preset | image | batch | `--recompute` | CPU, measured | GPU, computed |\n|---|---|---|---|---|---|")
    for preset in ("multi-scale", "two-stage"):
        for height, width, images in ((512, 683, 1), (800, 1066, 1), (800, 1066, 2)):
            for recompute in ("no", "yes"):
                case = [preset, str(height), str(width), str(images), recompute]
                values = [float(subprocess.run([sys.executable, __file__, "--one", kind, *case], check=True,
                                               capture_output=True, text=True).stdout)
                          for kind in ("measured", "computed")]
                print(f"| {preset} | {height} x {width} | {images} | {recompute} | "
                      f"{values[0]:.1f} GiB | {values[1]:.1f} GiB |", flush=True)


if __name__ == "__main__":
    main()
