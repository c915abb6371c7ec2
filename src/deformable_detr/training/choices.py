"""What a training does where nobody says how: chosen for the data and the machine, each with its reason.

Fitted to a few hundred images; docs/training.md has what was measured with them.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deformable_detr.check.limits import SIZE_STEP, find_machine, typical_side, usual_size
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.training.recipe import Recipe
from deformable_detr.training.start import Start
from deformable_detr.weights.sources import DEMO

logger = logging.getLogger(__name__)

FEW_IMAGES = 5000
FEWEST_EPOCHS, MOST_EPOCHS = 12, 200
LOOKS = {"cpu": 6000, "gpu": 30_000}         # at training images, over all epochs
BATCH_SIZE = {"cpu": 2, "gpu": 8}


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting, and why it is so."""

    value: Any
    reason: str


def choose(start: Start, said: Mapping[str, Any],
           annotations: Annotations) -> tuple[Start, Recipe, dict[str, str]]:
    """Where to start, how to train, and why, by setting; what the user has said of the recipe stays.

    A preset means the published recipe: then nothing is chosen. Raises ValueError where a recipe cannot be.
    """
    if start.preset:
        return start, Recipe(**said), {}
    begin: dict[str, Choice] = {}
    if start.is_open:
        begin["weights"] = Choice(DEMO, "the packaged detector, which has learnt to find things")
        begin |= {} if start.size else {"size": _size(annotations)}
        start = replace(start, **{name: choice.value for name, choice in begin.items()})
    recipe = _recipe(len(annotations.images), start, said)
    reasons = {name: f"{choice.value}: {choice.reason}" for name, choice in {**begin, **recipe}.items()}
    logger.info("chosen, as no flag says otherwise:")
    for name, reason in reasons.items():
        logger.info("  --%s %s", name.replace("_", "-"), reason)
    return start, Recipe(**{name: choice.value for name, choice in recipe.items()}, **said), reasons


def _size(annotations: Annotations) -> Choice:
    """Pixels of an image's short side."""
    typical, size = typical_side(annotations.images), usual_size(annotations.images)
    limit = f"; larger ones take long on a {find_machine().upper()}" if size < typical - SIZE_STEP else ""
    return Choice(size, f"the short side of half of the images is {typical} or more{limit}")


def _recipe(num_images: int, start: Start, said: Mapping[str, Any]) -> dict[str, Choice]:
    """Settings that are not as published, but for those that the user has said."""
    machine = find_machine()
    few = num_images < FEW_IMAGES
    epochs = min(max(round(LOOKS[machine] / num_images), FEWEST_EPOCHS), MOST_EPOCHS)
    epochs_said, batch_size = said.get("epochs", epochs), said.get("batch_size", BATCH_SIZE[machine])
    step_size = max(1, batch_size * int(os.environ.get("WORLD_SIZE", "1")), said.get("total_batch", 0))
    num_steps = epochs_said * -(-num_images // step_size)
    cores = os.cpu_count() or 1
    on_gpu = "; halved where its memory does not suffice" if machine == "gpu" else ""
    chosen = {
        "epochs": Choice(epochs, f"{num_images} images; {LOOKS[machine]} looks at one suit a {machine.upper()}"),
        "batch_size": Choice(BATCH_SIZE[machine], f"for a {machine.upper()}{on_gpu}"),
        "schedule": Choice("cosine", "the learning rate ends at 0, however long the training"),
        "warmup_steps": Choice(min(200, num_steps // 10), "at most a tenth of the steps"),
        "augmentation": Choice("strong", "few images, seen often") if few else Choice("small", "many images"),
        "ema_decay": Choice(0.999, "the average of many steps finds more than the last one"),
        "class_target": Choice("iou", "scores that say how well a box fits"),
        "save_steps": Choice(100, "an interruption costs no more steps than these"),
        "num_workers": Choice(min(max(1, cores // 2), 8), f"half of {cores} cores read images, at most 8"),
    }
    if said.get("augmentation", chosen["augmentation"].value) == "strong":
        chosen["plain_epochs"] = Choice(max(1, epochs_said // 6), "the last epochs see images as they are")
    if start.config.two_stage:
        chosen["denoising_queries"] = Choice(100, "boxes to put right in every step, so that it learns sooner")
    if start.weights == DEMO:
        chosen["learning_rate"] = Choice(3e-4, "suits the packaged detector, which is small")
        chosen["backbone_learning_rate"] = Choice(1e-4, "a third of it, as the backbone knows most already")
    if said.get("shard"):
        del chosen["ema_decay"]   # which needs the whole model
    return {name: choice for name, choice in chosen.items() if name not in said}
