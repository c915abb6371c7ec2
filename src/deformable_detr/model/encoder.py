"""Pyramid -> memory: every token attends to, or samples, the others (section 4.1)."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from deformable_detr.model.feedforward import FeedForward, by_slices, mlp
from deformable_detr.model.places import scaled
from deformable_detr.model.pyramid import token_centres
from deformable_detr.structures import Place, Pyramid


class EncoderLayer(nn.Module):
    """Self-attention of the tokens and a feed-forward network, each followed by a residual sum and a layer norm."""

    def __init__(self, attention: nn.Module, width: int, dropout: float, feed_forward: FeedForward) -> None:
        super().__init__()
        self.attention = attention
        self.dropout = nn.Dropout(dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = feed_forward

    def forward(self, memory: Pyramid, place: Place) -> Float[Tensor, "B N C"]:
        attended = self.attention(memory.tokens, place, memory)
        return by_slices(self.add, memory.tokens, attended)

    def add(self, tokens: Float[Tensor, "B N C"], attended: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """The tokens with what they attended to, through the feed-forward network."""
        return self.feed_forward(self.attention_norm(tokens + self.dropout(attended)))


class GivenPosition(nn.Module):
    """The position of each token stays as the pyramid made it."""

    def forward(self, memory: Pyramid) -> Float[Tensor, "B N C"]:
        return memory.position


class ScaledPosition(nn.Module):
    """The content decides in each layer how much each channel of the position counts (DAB-DETR's published code)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = mlp(width, width, width)

    def forward(self, memory: Pyramid) -> Float[Tensor, "B N C"]:
        return memory.position * self.scale(memory.tokens)


class Encoder(nn.Module):
    """A stack of encoder layers."""

    def __init__(self, layers: list[EncoderLayer], positions: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.positions = positions or GivenPosition()

    def forward(self, pyramid: Pyramid) -> Pyramid:
        """The same pyramid with encoded tokens: the memory."""
        reference = token_reference(pyramid)
        for layer in self.layers:
            place = Place(self.positions(pyramid), reference)
            pyramid = replace(pyramid, tokens=layer(pyramid, place))
        return pyramid


def token_reference(pyramid: Pyramid) -> Float[Tensor, "B N L 2"]:
    """The centre of every token, in [0, 1] of the padded map of each level.

    Levels round their padding differently; going through the unpadded image and scaling by each level's valid ratio
    keeps the same place of the image on all of them.
    """
    return scaled(token_centres(pyramid), pyramid)
