"""Deformable DETR (Zhu et al., 2020, arXiv 2010.04159): attention that samples a few learned points.

DETR's attention compares every token with every other, so it takes one coarse map and 500 epochs. Here each query
samples P points on each of L levels around a reference (section 4.1): the cost grows with the number of tokens, fine
maps are affordable, and 50 epochs suffice. Published COCO AP with ResNet-50 (table 1 and the authors' repository):
single-scale 39.4, single-scale-dc5 41.5, multi-scale 44.5, refine 46.2, two-stage 46.9.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from deformable_detr.criterion.denoising import Denoising, build_denoising
from deformable_detr.criterion.losses import SetLoss
from deformable_detr.model.attention import DeformableAttention
from deformable_detr.model.backbone import Backbone
from deformable_detr.model.decoder import Decoder, DecoderLayer
from deformable_detr.model.dense_attention import QuerySelfAttention
from deformable_detr.model.encoder import Encoder, EncoderLayer
from deformable_detr.model.feedforward import FeedForward
from deformable_detr.model.heads import LayerHeads, SharedHead, focal_head
from deformable_detr.model.network import Network
from deformable_detr.model.places import GivenPlace
from deformable_detr.model.position import MapPosition
from deformable_detr.model.pyramid import PyramidBuilder
from deformable_detr.model.queries import BoxEmbedding, LearnedContent, LearnedQueries, ProposalQueries
from deformable_detr.model.refinement import look_forward_twice, refine, stay
from deformable_detr.papers.config import DeformableConfig, Preset
from deformable_detr.structures import Target


@dataclass(frozen=True, repr=False)
class ModelConfig(DeformableConfig):
    """Deformable DETR's parts and sizes; the defaults are the published multi-scale detector (section 5).

    Attributes:
        refine: Each decoder layer moves the boxes of the one before (section 4.2).
        two_stage: The encoder proposes the boxes to start from (section 4.2); needs refine.
        mixed_queries: A proposal gives a query its position only, its content is learned (DINO); needs two_stage.
        look_forward_twice: A layer's box loss trains the layer before it too (DINO); needs refine.
    """

    paper: ClassVar[str] = "deformable-detr"
    recipe: ClassVar[dict[str, Any]] = {}       # the defaults of a recipe are this paper's
    presets: ClassVar[dict[Preset, dict[str, Any]]] = {
        "single-scale": {"num_levels": 1},
        "single-scale-dc5": {"num_levels": 1, "dilation": True},
        "multi-scale": {},
        "refine": {"refine": True},
        "two-stage": {"refine": True, "two_stage": True},
    }

    refine: bool = False
    two_stage: bool = False
    mixed_queries: bool = False
    look_forward_twice: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.two_stage and not self.refine:
            raise ValueError("two_stage: needs refine=True, since its proposals are refined layer by layer")
        if self.mixed_queries and not self.two_stage:
            raise ValueError("mixed_queries: needs two_stage=True, since its positions come from proposals")
        if self.look_forward_twice and not self.refine:
            raise ValueError("look_forward_twice: needs refine=True, since otherwise layers do not share boxes")

    @property
    def starts_from_boxes(self) -> bool:
        """Proposals are boxes; learned queries have points."""
        return self.two_stage


class DeformableDETR(Network):
    """The detector that `config` describes.

    The weights are random, initialised as published; with `pretrained` timm downloads those of the backbone.
    """

    def __init__(self, config: ModelConfig, *, pretrained: bool = False) -> None:
        backbone = Backbone(config.backbone, min(config.num_levels, 3), config.dilation, pretrained)
        super().__init__(config, backbone,
                         PyramidBuilder(backbone.channels, config.num_levels, MapPosition(config.width)),
                         deformable_encoder(config), build_queries(config), build_decoder(config))


def network(config: ModelConfig, *, pretrained: bool = False) -> Network:
    return DeformableDETR(config, pretrained=pretrained)


def criterion(config: ModelConfig) -> SetLoss:  # noqa: ARG001  (the same for all five presets)
    """The published losses and their weights (section 4 and appendix A.3)."""
    return SetLoss()


def denoising(config: ModelConfig, targets: Sequence[Target], num_queries: int) -> Denoising:  # noqa: ARG001
    """Noisy boxes without labels; not in the paper."""
    return build_denoising(targets, num_queries)


def deformable_attention(config: DeformableConfig) -> DeformableAttention:
    """One deformable attention layer."""
    return DeformableAttention(config.width, config.num_heads, config.num_levels, config.num_points)


def deformable_encoder(config: DeformableConfig) -> Encoder:
    """Encoder layers whose tokens sample each other."""
    return Encoder([EncoderLayer(deformable_attention(config), config.width, config.dropout,
                                 FeedForward(config.width, config.ffn_width, config.dropout))
                    for _ in range(config.num_encoder_layers)])


def deformable_decoder_layers(config: DeformableConfig) -> list[DecoderLayer]:
    """Decoder layers whose queries attend to each other and sample the memory."""
    return [DecoderLayer(QuerySelfAttention(config.width, config.num_heads, config.dropout),
                         deformable_attention(config), config.width, config.dropout,
                         FeedForward(config.width, config.ffn_width, config.dropout))
            for _ in range(config.num_decoder_layers)]


def build_queries(config: ModelConfig) -> LearnedQueries | ProposalQueries:
    """Learned queries, or the encoder's proposals."""
    if not config.two_stage:
        return LearnedQueries(config.num_queries, config.width)
    embedding = (LearnedContent(config.num_queries, config.width) if config.mixed_queries
                 else BoxEmbedding(config.width))
    return ProposalQueries(config.num_queries, config.width, embedding, focal_head(config.width, config.num_classes))


def build_decoder(config: ModelConfig) -> Decoder:
    """All decoder layers, their heads, and how a box moves from layer to layer."""
    layers = deformable_decoder_layers(config)
    if not config.refine:
        head = focal_head(config.width, config.num_classes, size_bias=-2)
        return Decoder(layers, SharedHead(head), GivenPlace(), stay)
    first_bias = 0 if config.two_stage else -2   # a point has no size to start from: small boxes at first
    heads = [focal_head(config.width, config.num_classes, size_bias=0 if layer else first_bias)
             for layer in range(config.num_decoder_layers)]
    return Decoder(layers, LayerHeads(heads), GivenPlace(), look_forward_twice if config.look_forward_twice else refine)
