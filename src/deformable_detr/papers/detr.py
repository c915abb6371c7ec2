"""DETR (Carion et al., 2020, arXiv 2005.12872): detection as the prediction of a set.

No anchors and no suppression: a transformer turns one map of features and 100 learned queries into 100 boxes, and a
one-to-one matching (section 3.1) assigns each object to exactly one query, the others to "no object". Attention is
dense: every token attends to every other. Published COCO AP with ResNet-50 after 500 epochs (table 1): 42.0, with a
dilated C5 43.3.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from deformable_detr.criterion.class_costs import softmax_cost
from deformable_detr.criterion.class_losses import SoftmaxLoss
from deformable_detr.criterion.losses import SetLoss
from deformable_detr.model.backbone import Backbone
from deformable_detr.model.decoder import Decoder, DecoderLayer
from deformable_detr.model.dense_attention import MemoryAttention, QuerySelfAttention, TokenSelfAttention
from deformable_detr.model.encoder import Encoder, EncoderLayer
from deformable_detr.model.feedforward import FeedForward
from deformable_detr.model.heads import Head, SharedHead
from deformable_detr.model.network import Network
from deformable_detr.model.places import GivenPlace
from deformable_detr.model.position import MapPosition
from deformable_detr.model.pyramid import SingleMap
from deformable_detr.model.queries import SlotQueries
from deformable_detr.model.refinement import stay
from deformable_detr.papers.config import NO_SAMPLING, Config, Preset


@dataclass(frozen=True, repr=False)
class DETRConfig(Config):
    """DETR's sizes (section 4 and appendix A.4)."""

    paper: ClassVar[str] = "detr"
    presets: ClassVar[dict[Preset, dict[str, Any]]] = {"detr": {}, "detr-dc5": {"dilation": True}}
    recipe: ClassVar[dict[str, Any]] = {
        "epochs": 300, "drop_epoch": 200, "learning_rate": 1e-4, "backbone_learning_rate": 1e-5, "slow_factor": 1.0,
        "class_weight": 1.0}

    ffn_width: int = 2048
    num_queries: int = 100

    @property
    def meaningless(self) -> dict[str, tuple[Any, str]]:
        return {**super().meaningless, "slow_factor": (1, NO_SAMPLING),
                "class_target": ("hard", "scores come from a softmax over the classes and \"no object\"")}


def network(config: DETRConfig, *, pretrained: bool = False) -> Network:
    """Backbone, one map, dense encoder and decoder, one head for all layers."""
    backbone = Backbone(config.backbone, 1, config.dilation, pretrained)
    position = MapPosition(config.width, offset=0)
    encoder = Encoder([EncoderLayer(TokenSelfAttention(config.width, config.num_heads, config.dropout), config.width,
                                    config.dropout, feed_forward(config))
                       for _ in range(config.num_encoder_layers)])
    layers = [DecoderLayer(QuerySelfAttention(config.width, config.num_heads, config.dropout),
                           MemoryAttention(config.width, config.num_heads, config.dropout), config.width,
                           config.dropout, feed_forward(config))
              for _ in range(config.num_decoder_layers)]
    decoder = Decoder(layers, SharedHead(Head(config.width, config.num_classes + 1)), GivenPlace(), stay,
                      nn.LayerNorm(config.width), no_object=True)
    return Network(config, backbone, SingleMap(backbone.channels[-1], position), encoder,
                   SlotQueries(config.num_queries, config.width), decoder)


def feed_forward(config: DETRConfig) -> FeedForward:
    return FeedForward(config.width, config.ffn_width, config.dropout)


def criterion(config: DETRConfig) -> SetLoss:  # noqa: ARG001
    """Cross-entropy over the classes and "no object", which counts a tenth (section 3.1 and appendix A.4)."""
    return SetLoss(class_weight=1, class_loss=SoftmaxLoss(), class_cost=softmax_cost)
