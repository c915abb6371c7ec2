"""What a recipe is made of for a model: the optimizer and the losses."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from torch import nn
from torch.optim import AdamW

from deformable_detr.criterion import SetLoss
from deformable_detr.model.network import Network
from deformable_detr.papers import Config, build_criterion
from deformable_detr.training.recipe import Recipe

LOSS_SETTINGS = ("class_weight", "box_weight", "giou_weight", "class_target", "proposal_repeats")   # of a recipe


@runtime_checkable
class HasSlowParameters(Protocol):
    """A part of a model that knows which of its parameters have to learn slowly."""

    def slow_parameters(self) -> Iterator[nn.Parameter]: ...


def build_optimizer(model: Network, recipe: Recipe) -> AdamW:
    """AdamW in two or three groups: most parameters, the backbone, and what decides where to sample (appendix A.4).

    The third is there only if the recipe's `slow_factor` makes it slower.
    """
    slow = {parameter for module in model.modules() if isinstance(module, HasSlowParameters)
            for parameter in module.slow_parameters()} if recipe.slow_factor != 1 else set()
    backbone = set(model.backbone.parameters())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p not in slow and p not in backbone], "lr": recipe.learning_rate},
        {"params": [p for p in trained if p in backbone], "lr": recipe.backbone_learning_rate},
        {"params": [p for p in trained if p in slow], "lr": recipe.learning_rate * recipe.slow_factor}]
    on_cpu = all(parameter.device.type == "cpu" for parameter in trained)
    return AdamW(groups if slow else groups[:2], lr=recipe.learning_rate, weight_decay=recipe.weight_decay,
                 fused=True if on_cpu and not recipe.shard else None)   # all of a step in one pass over memory


def build_loss(config: Config, recipe: Recipe) -> SetLoss:
    """The losses of the config's paper with the recipe's settings.

    Raises ValueError for a setting of the losses that means nothing for the detector.
    """
    check_meaning(config, {name: getattr(recipe, name) for name in (*LOSS_SETTINGS, "denoising_queries")})
    return replace(build_criterion(config), **{name: getattr(recipe, name) for name in LOSS_SETTINGS})


def check_meaning(config: Config, settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a setting of a recipe that means nothing for the detector."""
    for name, (needed, reason) in config.meaningless.items():
        if settings.get(name, needed) != needed:
            raise ValueError(f"{name}: expected {needed}, since {reason}, got {settings[name]}")
