"""Settings of a training that the user leaves open, chosen for the data and the machine, each with its reason.

They suit a few hundred images; docs/training.md has what was measured with them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.training.defaults import find_machine
from deformable_detr.training.optimizer import check_meaning
from deformable_detr.training.origin import Origin, read_origin
from deformable_detr.training.processes import num_processes
from deformable_detr.training.recipe import Recipe
from deformable_detr.training.start import Start
from deformable_detr.training.start_choices import SMALL_MODEL, Choice, choose_start

FEW_IMAGES = 5000
MIN_EPOCHS, MAX_EPOCHS = 12, 200
IMAGES_SEEN = {"cpu": 6000, "gpu": 30_000}      # in all epochs together
BATCH_SIZE = {"cpu": 2, "gpu": 8}


@dataclass(frozen=True)
class Plan:
    """How to train: where to start, the recipe, and of each setting that was chosen the value with its reason."""

    start: Start
    origin: Origin
    recipe: Recipe
    reasons: dict[str, str]


def plan_training(start: Start, given: Mapping[str, Any], annotations: Annotations) -> Plan:
    """Choose what neither `start` nor the recipe's settings in `given` decide, and read the weights to start from.

    A preset means the published recipe: then nothing is chosen. What is neither given nor chosen is as published for
    the paper. Raises ValueError for a start or a recipe that is impossible.
    """
    if start.preset:
        origin = read_origin(start)
        check_meaning(origin.config, given)
        return Plan(start, origin, Recipe(**{**origin.config.recipe, **given}), {})
    start, beginning = choose_start(start, annotations)
    origin = read_origin(start)
    check_meaning(origin.config, given)
    is_small = origin.config.width <= SMALL_MODEL["width"]
    chosen = _choose_schedule(len(annotations.images), given) | _choose_rest(len(annotations.images), is_small)
    chosen |= _choose_plain_epochs(chosen, given)
    if given.get("shard"):
        del chosen["ema_decay"]   # which needs the whole model
    chosen = {name: choice for name, choice in chosen.items()
              if name not in given and name not in origin.config.meaningless}
    recipe = Recipe(**{**origin.config.recipe, **{name: choice.value for name, choice in chosen.items()}, **given})
    return Plan(start, origin, recipe, {name: f"{choice.value}: {choice.reason}"
                                        for name, choice in {**beginning, **chosen}.items()})


def _choose_schedule(num_images: int, given: Mapping[str, Any]) -> dict[str, Choice]:
    """How long to train, in which steps."""
    machine = find_machine()
    epochs = min(max(round(IMAGES_SEEN[machine] / num_images), MIN_EPOCHS), MAX_EPOCHS)
    batch_size = given.get("batch_size", BATCH_SIZE[machine])
    step_size = max(1, batch_size * num_processes(), given.get("total_batch", 0))
    num_steps = given.get("epochs", epochs) * -(-num_images // step_size)
    on_gpu = "; halved where its memory does not suffice" if machine == "gpu" else ""
    return {
        "epochs": Choice(epochs, f"{num_images} images; a {machine.upper()} should see {IMAGES_SEEN[machine]} in all"),
        "batch_size": Choice(BATCH_SIZE[machine], f"for a {machine.upper()}{on_gpu}"),
        "schedule": Choice("cosine", "the learning rate ends at 0, however long the training"),
        "warmup_steps": Choice(min(200, num_steps // 10), "at most a tenth of the steps"),
    }


def _choose_rest(num_images: int, is_small: bool) -> dict[str, Choice]:
    """What does not depend on the length of the training; whether the model is of the packaged detector's size."""
    cores, few = os.cpu_count() or 1, num_images < FEW_IMAGES
    chosen = {
        "augmentation": Choice("strong", "few images, seen often") if few else Choice("small", "many images"),
        "ema_decay": Choice(0.999, "the average of many steps detects better than the last step"),
        "class_target": Choice("iou", "scores that tell how well a box fits"),
        "save_steps": Choice(100, "an interruption costs at most this many steps"),
        "denoising_queries": Choice(100, "noisy boxes to correct in every step, so that it learns sooner"),
        "num_workers": Choice(min(max(1, cores // 2), 8), f"half of {cores} cores read images, at most 8"),
    }
    if is_small:
        chosen["learning_rate"] = Choice(3e-4, "suits the packaged detector, and others of its size")
        chosen["backbone_learning_rate"] = Choice(1e-4, "a third of it, as the backbone knows most already")
    return chosen


def _choose_plain_epochs(chosen: Mapping[str, Choice], given: Mapping[str, Any]) -> dict[str, Choice]:
    if given.get("augmentation", chosen["augmentation"].value) != "strong":
        return {}
    epochs = given.get("epochs", chosen["epochs"].value)
    return {"plain_epochs": Choice(max(1, epochs // 6), "the last epochs see natural images")}
