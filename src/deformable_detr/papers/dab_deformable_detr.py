"""DAB-Deformable-DETR (Liu et al., 2022, arXiv 2201.12329, appendix): anchor boxes for Deformable DETR.

Deformable DETR with refinement, whose queries are boxes from the first layer on. Each has a learned content, and its
position is made from its box in every layer, scaled by the content. Published COCO AP with ResNet-50 after 50 epochs
(the authors' repository): 48.7.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from deformable_detr.criterion.losses import SetLoss
from deformable_detr.model.backbone import Backbone
from deformable_detr.model.decoder import Decoder
from deformable_detr.model.heads import LayerHeads, focal_head
from deformable_detr.model.network import Network
from deformable_detr.model.places import ScaledBoxPlace
from deformable_detr.model.position import MapPosition
from deformable_detr.model.pyramid import PyramidBuilder
from deformable_detr.model.queries import AnchorContentQueries
from deformable_detr.model.refinement import refine
from deformable_detr.papers import dab_detr
from deformable_detr.papers.config import DeformableConfig, Preset
from deformable_detr.papers.deformable_detr import deformable_decoder_layers, deformable_encoder


@dataclass(frozen=True, repr=False)
class DABDeformableDETRConfig(DeformableConfig):
    """DAB-Deformable-DETR's sizes."""

    paper: ClassVar[str] = "dab-deformable-detr"
    presets: ClassVar[dict[Preset, dict[str, Any]]] = {"dab-deformable-detr": {}}
    recipe: ClassVar[dict[str, Any]] = dab_detr.DABDETRConfig.recipe

    ffn_width: int = 2048
    dropout: float = 0.0


def network(config: DABDeformableDETRConfig, *, pretrained: bool = False) -> Network:
    """Deformable DETR's pyramid, encoder and decoder layers; DAB-DETR's queries."""
    backbone = Backbone(config.backbone, min(config.num_levels, 3), config.dilation, pretrained)
    heads = [focal_head(config.width, config.num_classes, size_bias=0 if layer else -2, epsilon=dab_detr.EPSILON)
             for layer in range(config.num_decoder_layers)]
    return Network(config, backbone,
                   PyramidBuilder(backbone.channels, config.num_levels, MapPosition(config.width)),
                   deformable_encoder(config),
                   AnchorContentQueries(config.num_queries, config.width),
                   Decoder(deformable_decoder_layers(config), LayerHeads(heads), ScaledBoxPlace(config.width), refine))


def criterion(config: DABDeformableDETRConfig) -> SetLoss:
    """As DAB-DETR."""
    return dab_detr.criterion(config)
