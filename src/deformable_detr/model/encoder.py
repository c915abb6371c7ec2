"""Pyramid -> memory: every token reads its surroundings on all levels (paper, section 4.2)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from deformable_detr.model.attention import DeformableAttention
from deformable_detr.model.feedforward import FeedForward
from deformable_detr.model.pyramid import token_centres
from deformable_detr.structures import LevelShapes, Pyramid


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each with a residual and a layer norm behind it."""

    def __init__(self, attention: DeformableAttention, width: int, ffn_width: int, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.dropout = nn.Dropout(dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, ffn_width, dropout)

    def forward(self, tokens: Float[Tensor, "B N C"], position: Float[Tensor, "B N C"],
                reference: Float[Tensor, "B N L 2"], padding: Bool[Tensor, "B N"],
                level_shapes: LevelShapes) -> Float[Tensor, "B N C"]:
        read = self.attention(tokens + position, reference, tokens, padding, level_shapes)
        tokens = self.attention_norm(tokens + self.dropout(read))
        return self.feed_forward(tokens)


class Encoder(nn.Module):
    """Encoder layers, one after the other."""

    def __init__(self, layers: list[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, pyramid: Pyramid) -> Float[Tensor, "B N C"]:
        reference = token_reference(pyramid)
        memory = pyramid.tokens
        for layer in self.layers:
            memory = layer(memory, pyramid.position, reference, pyramid.padding, pyramid.level_shapes)
        return memory


def token_reference(pyramid: Pyramid) -> Float[Tensor, "B N L 2"]:
    """The centre of every token, in [0, 1] of the padded map of each level.

    By way of the unpadded image, then scaled by each level's valid ratio: levels round their padding
    differently, and the same place of the image is meant on all of them.
    """
    return token_centres(pyramid)[:, :, None] * pyramid.valid_ratios[:, None]
