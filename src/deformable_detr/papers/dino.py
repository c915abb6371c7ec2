"""DINO (Zhang et al., 2022, arXiv 2203.03605): denoising anchor boxes.

Two-stage Deformable DETR with three changes. Queries take only their boxes from the proposals, and have a learned
content (mixed query selection, section 3.4). The loss of a box also reaches the layer before (look forward twice,
section 3.5). While it learns to detect, the decoder also learns to repair noisy boxes and to reject noisier ones
(contrastive denoising, section 3.3). Published COCO AP with ResNet-50 (the authors' repository): 4-scale 49.0 after 12
epochs and 50.4 after 24, 5-scale 49.4 and 51.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from deformable_detr.criterion.contrastive import contrastive_denoising
from deformable_detr.criterion.denoising import Denoising
from deformable_detr.criterion.losses import SetLoss
from deformable_detr.criterion.proposals import chosen_classes
from deformable_detr.model.backbone import Backbone
from deformable_detr.model.decoder import Decoder
from deformable_detr.model.heads import SharedHead, focal_head
from deformable_detr.model.network import Network
from deformable_detr.model.places import BoxPlace
from deformable_detr.model.position import MapPosition
from deformable_detr.model.pyramid import PyramidBuilder
from deformable_detr.model.queries import LabelledContent, ProposalQueries, score_of_best_class
from deformable_detr.model.refinement import look_forward_twice
from deformable_detr.papers import dab_detr
from deformable_detr.papers.config import DeformableConfig, Preset
from deformable_detr.papers.deformable_detr import deformable_decoder_layers, deformable_encoder
from deformable_detr.structures import Target


@dataclass(frozen=True, repr=False)
class DINOConfig(DeformableConfig):
    """DINO's sizes (section 4.1 and appendix D.4).

    Attributes:
        num_maps: Maps taken from the backbone; 4 begin at stride 4. Further levels are convolved.
    """

    paper: ClassVar[str] = "dino"
    presets: ClassVar[dict[Preset, dict[str, Any]]] = {
        "dino-4scale": {}, "dino-5scale": {"num_levels": 5, "num_maps": 4}}
    recipe: ClassVar[dict[str, Any]] = {
        "epochs": 12, "drop_epoch": 11, "learning_rate": 1e-4, "backbone_learning_rate": 1e-5, "slow_factor": 1.0,
        "class_weight": 1.0, "denoising_queries": 200}

    ffn_width: int = 2048
    dropout: float = 0.0
    num_queries: int = 900
    num_maps: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_maps <= min(self.num_levels, 4):
            raise ValueError(f"num_maps: expected 1 to {min(self.num_levels, 4)}, got {self.num_maps}")

    @property
    def finest_stride(self) -> int:
        return (4, 8, 16, 16 if self.dilation else 32)[-self.num_maps]

    @property
    def starts_from_boxes(self) -> bool:
        return True


def network(config: DINOConfig, *, pretrained: bool = False) -> Network:
    """Deformable DETR's pyramid, encoder and decoder layers; proposals by best class, one head, boxes twice."""
    width, num_classes = config.width, config.num_classes
    backbone = Backbone(config.backbone, config.num_maps, config.dilation, pretrained)
    position = MapPosition(width, offset=0, temperature=20)
    queries = ProposalQueries(config.num_queries, width, LabelledContent(config.num_queries, width, num_classes),
                              focal_head(width, num_classes), score_of_best_class)
    head = SharedHead(focal_head(width, num_classes, epsilon=dab_detr.EPSILON))
    decoder = Decoder(deformable_decoder_layers(config), head, BoxPlace(width), look_forward_twice, nn.LayerNorm(width))
    return Network(config, backbone, PyramidBuilder(backbone.channels, config.num_levels, position),
                   deformable_encoder(config), queries, decoder)


def denoising(config: DINOConfig, targets: Sequence[Target], num_queries: int) -> Denoising | None:
    """Noisy boxes with noisy labels."""
    return contrastive_denoising(targets, num_queries, config.num_classes)


def criterion(config: DINOConfig) -> SetLoss:
    """DAB-DETR's, on the chosen proposals with their classes, and on denoising queries."""
    return replace(dab_detr.criterion(config), proposals=chosen_classes, denoising_names=True)
