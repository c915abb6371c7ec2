"""DAB-DETR (Liu et al., 2022, arXiv 2201.12329): queries are dynamic anchor boxes.

DETR's queries learn slowly because a learned vector says poorly where to look. Here a query is a box (section 4.2): its
sine encoding is compared with the positions of the memory, stretched by the box's width and height (section 4.4), and
every layer moves the box for the next (section 4.3). Published COCO AP with ResNet-50 after 50 epochs (the authors'
repository): 42.2, with a dilated C5 44.5.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from deformable_detr.criterion.losses import SetLoss
from deformable_detr.model.backbone import Backbone
from deformable_detr.model.conditional_attention import (
    ConditionalAttention,
    ConditionalSelfAttention,
    FirstConditionalAttention,
)
from deformable_detr.model.decoder import Decoder, DecoderLayer
from deformable_detr.model.dense_attention import TokenSelfAttention
from deformable_detr.model.encoder import Encoder, EncoderLayer, ScaledPosition
from deformable_detr.model.feedforward import FeedForward
from deformable_detr.model.heads import SharedHead, focal_head
from deformable_detr.model.network import Network
from deformable_detr.model.places import ModulatedPlace
from deformable_detr.model.position import MapPosition
from deformable_detr.model.pyramid import SingleMap
from deformable_detr.model.queries import AnchorQueries
from deformable_detr.model.refinement import look_forward_twice
from deformable_detr.papers.config import NO_SAMPLING, Config, Preset

EPSILON = 1e-3          # of the inverse sigmoid, in this paper and those after it
GIOU_EPSILON = 1e-6     # added to areas that are divided by


@dataclass(frozen=True, repr=False)
class DABDETRConfig(Config):
    """DAB-DETR's sizes (section 5)."""

    paper: ClassVar[str] = "dab-detr"
    presets: ClassVar[dict[Preset, dict[str, Any]]] = {"dab-detr": {}, "dab-detr-dc5": {"dilation": True}}
    recipe: ClassVar[dict[str, Any]] = {
        "epochs": 50, "drop_epoch": 40, "learning_rate": 1e-4, "backbone_learning_rate": 1e-5, "slow_factor": 1.0,
        "class_weight": 1.0}

    ffn_width: int = 2048
    dropout: float = 0.0

    @property
    def meaningless(self) -> dict[str, tuple[Any, str]]:
        return {**super().meaningless, "slow_factor": (1, NO_SAMPLING)}


def network(config: DABDETRConfig, *, pretrained: bool = False) -> Network:
    """As DETR, with anchors for queries, conditional attention and boxes that move from layer to layer."""
    backbone = Backbone(config.backbone, 1, config.dilation, pretrained)
    width, num_heads, dropout = config.width, config.num_heads, config.dropout
    encoder = Encoder([EncoderLayer(TokenSelfAttention(width, num_heads, dropout), width, dropout, feed_forward(config))
                       for _ in range(config.num_encoder_layers)], ScaledPosition(width))
    cross_attentions = [(ConditionalAttention if layer else FirstConditionalAttention)(width, num_heads, dropout)
                        for layer in range(config.num_decoder_layers)]
    layers = [DecoderLayer(ConditionalSelfAttention(width, num_heads, dropout), cross_attention, width, dropout,
                           feed_forward(config)) for cross_attention in cross_attentions]
    decoder = Decoder(layers, SharedHead(focal_head(width, config.num_classes, epsilon=EPSILON)),
                      ModulatedPlace(width), look_forward_twice, nn.LayerNorm(width))
    position = MapPosition(width, offset=0, temperature=20)
    return Network(config, backbone, SingleMap(backbone.channels[-1], position), encoder,
                   AnchorQueries(config.num_queries, width), decoder)


def feed_forward(config: DABDETRConfig) -> FeedForward:
    return FeedForward(config.width, config.ffn_width, config.dropout, nn.PReLU())


def criterion(config: Config) -> SetLoss:  # noqa: ARG001
    """Focal loss, which counts half as much in the sum as in the matching."""
    return SetLoss(class_weight=1, class_cost_factor=2, giou_epsilon=GIOU_EPSILON)
