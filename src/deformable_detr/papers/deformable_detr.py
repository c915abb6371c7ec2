"""The detector. Its `forward` is the table of contents: each line is a file of this folder."""

from torch import nn

from deformable_detr.model.attention import DeformableAttention
from deformable_detr.model.backbone import Backbone
from deformable_detr.model.decoder import Decoder, DecoderLayer
from deformable_detr.model.encoder import Encoder, EncoderLayer
from deformable_detr.model.heads import RefiningHeads, SharedHead
from deformable_detr.model.pyramid import PyramidBuilder
from deformable_detr.model.queries import LearnedQueries, ProposalQueries
from deformable_detr.papers.config import ModelConfig
from deformable_detr.structures import ExtraQueries, ImageBatch, Predictions


class DeformableDETR(nn.Module):
    """Deformable DETR (arXiv 2010.04159) as `config` describes it.

    The weights are random, initialised as published; with `pretrained` timm fetches those of the backbone.
    """

    def __init__(self, config: ModelConfig, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, min(config.num_levels, 3), config.dilation, pretrained)
        self.pyramid = PyramidBuilder(self.backbone.channels, config.width, config.num_levels)
        self.encoder = build_encoder(config)
        self.queries = build_queries(config)
        self.decoder = build_decoder(config)

    def forward(self, batch: ImageBatch, extra_queries: ExtraQueries | None = None) -> Predictions:
        """Every decoder layer's classes and boxes for a batch of images; training may ask about further boxes.

        Raises ValueError for extra queries to a detector without proposals, beside which they could stand.
        """
        features = self.backbone(batch)                    # C3..C5
        pyramid = self.pyramid(features)                   # L levels as one token sequence (B, N, C)
        memory = self.encoder(pyramid)                     # (B, N, C)
        queries = self.queries(memory, pyramid, extra_queries)     # content, position, reference (B, Q, .)
        return self.decoder(queries, memory, pyramid)      # logits and boxes of every layer


def build_attention(config: ModelConfig) -> DeformableAttention:
    """One deformable attention layer."""
    return DeformableAttention(config.width, config.num_heads, config.num_levels, config.num_points)


def build_encoder(config: ModelConfig) -> Encoder:
    """All encoder layers."""
    return Encoder([EncoderLayer(build_attention(config), config.width, config.ffn_width, config.dropout)
                    for _ in range(config.num_encoder_layers)])


def build_queries(config: ModelConfig) -> LearnedQueries | ProposalQueries:
    """Learned queries, or the encoder's proposals."""
    if config.two_stage:
        return ProposalQueries(config.num_queries, config.width, config.num_classes, config.mixed_queries)
    return LearnedQueries(config.num_queries, config.width)


def build_decoder(config: ModelConfig) -> Decoder:
    """All decoder layers and their heads."""
    layers = [DecoderLayer(build_attention(config), config.width, config.ffn_width, config.dropout)
              for _ in range(config.num_decoder_layers)]
    if config.refine:
        heads = RefiningHeads(config.width, config.num_classes, config.num_decoder_layers,
                              config.two_stage, config.look_forward_twice)
    else:
        heads = SharedHead(config.width, config.num_classes)
    return Decoder(layers, heads)
