"""All papers, and what is built from a config of any of them."""

from collections.abc import Sequence
from types import ModuleType

from deformable_detr.criterion.denoising import Denoising
from deformable_detr.criterion.losses import SetLoss
from deformable_detr.model.network import Network
from deformable_detr.papers import dab_deformable_detr, dab_detr, deformable_detr, detr, dino
from deformable_detr.papers.config import Config
from deformable_detr.papers.deformable_detr import DeformableDETR, ModelConfig
from deformable_detr.structures import Target

__all__ = ["PAPERS", "Config", "DeformableDETR", "ModelConfig", "build_criterion", "build_model", "draw_denoising"]

PAPERS: dict[str, ModuleType] = {"deformable-detr": deformable_detr, "detr": detr, "dab-detr": dab_detr,
                                 "dab-deformable-detr": dab_deformable_detr, "dino": dino}


def build_model(config: Config, *, pretrained: bool = False) -> Network:
    """The network of the config's paper, with random weights; `pretrained` downloads the backbone's from timm."""
    return PAPERS[config.paper].network(config, pretrained=pretrained)


def build_criterion(config: Config) -> SetLoss:
    """The losses of the config's paper."""
    return PAPERS[config.paper].criterion(config)


def draw_denoising(config: Config, targets: Sequence[Target], num_queries: int) -> Denoising | None:
    """Noisy boxes for a batch, about `num_queries` for each image, as the paper wants them; None without objects.

    `config.starts_from_boxes` must hold.
    """
    return PAPERS[config.paper].denoising(config, targets, num_queries)
