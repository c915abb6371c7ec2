"""How fast the multi-scale detector learns: `python benchmarks/training.py`.

A step is forward, matching, losses and backward at batch 1, stem and first stage frozen as published. Beside it, where
it is installed, the same detector of `transformers` with the same weights; losses are compared before anything is
timed. The floor is the same convolutions and matrix products alone, forward and backward.
"""

from collections.abc import Callable
from typing import Any

import torch
from measuring import run_cases
from published import SIZE, build_ours, build_transformers, floor, image

from deformable_detr import ImageBatch, Target
from deformable_detr.model.network import Network
from deformable_detr.training import SetLoss

NUM_OBJECTS = 10
Learn = Callable[[], float]


def targets() -> list[Target]:
    generator = torch.Generator().manual_seed(2)
    boxes = torch.rand(NUM_OBJECTS, 4, generator=generator) / 2 + 0.1
    return [Target(torch.randint(91, (NUM_OBJECTS,), generator=generator), boxes)]


def learning(model: Network) -> Learn:
    batch, loss = ImageBatch.from_images([image()]), SetLoss(class_weight=1)   # as `transformers` has it
    model.backbone.fold_in_training()   # as `ddetr train` does

    def learn() -> float:
        model.zero_grad()
        total = loss(model(batch), targets()).total
        total.backward()
        return total.item()

    return learn


def learning_with_transformers(model: Any) -> Learn:
    model.config.auxiliary_loss = True
    pixels, mask = image()[None], torch.ones(1, *SIZE, dtype=torch.long)
    labels = [{"class_labels": target.labels, "boxes": target.boxes} for target in targets()]

    def learn() -> float:
        model.zero_grad()
        total = model(pixel_values=pixels, pixel_mask=mask, labels=labels).loss
        total.backward()
        return total.item()

    return learn


def compare(results: dict[str, Any]) -> None:
    """Print how far the others' loss is from ours."""
    ours = results["deformable_detr"]
    for name in results.keys() - {"deformable_detr", "floor"}:
        print(f"{name}: the loss differs by {abs(ours / results[name] - 1):.1e} of it")


def cases() -> dict[str, Callable[[], object]]:
    ours = build_ours()
    theirs = build_transformers(ours)
    floor_of_ours = floor(ours, backward=True)
    found: dict[str, Callable[[], object]] = {"deformable_detr": learning(ours.train())}
    if theirs is not None:
        found["transformers"] = learning_with_transformers(theirs.train())
    return {**found, "floor": floor_of_ours}


if __name__ == "__main__":
    run_cases(__doc__, cases, compare, f"{SIZE[0]} x {SIZE[1]}, batch 1")
