"""DAB-DETR's attention: content and position have projections of their own (arXiv 2201.12329, figure 5)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deformable_detr.model.dense_attention import Compared, attend
from deformable_detr.structures import Place, Pyramid


def linear(width: int) -> nn.Linear:
    """A square linear layer, initialised as all matrices of the published transformer."""
    layer = nn.Linear(width, width)
    nn.init.xavier_uniform_(layer.weight)
    return layer


class ConditionalSelfAttention(nn.Module):
    """The decoder's queries attend to each other; content and position are projected apart, then added."""

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_content, self.query_position = linear(width), linear(width)
        self.key_content, self.key_position = linear(width), linear(width)
        self.value, self.output = linear(width), linear(width)

    def forward(self, hidden: Float[Tensor, "B Q C"], place: Place,
                blocked: Bool[Tensor, "B Q Q"] | None) -> Float[Tensor, "B Q C"]:
        dropout = self.dropout if self.training else 0.0
        return self.output(attend(*self.compared(hidden, place), self.num_heads, blocked, dropout))

    def compared(self, hidden: Float[Tensor, "B Q C"], place: Place) -> Compared:
        query = self.query_content(hidden) + self.query_position(place.position)
        key = self.key_content(hidden) + self.key_position(place.position)
        return Compared(query, key, self.value(hidden))


class ConditionalAttention(nn.Module):
    """The decoder's queries attend to the memory: content is compared with content, place with place.

    In each head both stand next to each other, so that their products are added.
    """

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_content, self.query_sine = linear(width), linear(width)
        self.key_content, self.key_position = linear(width), linear(width)
        self.value, self.output = linear(width), linear(width)

    def forward(self, hidden: Float[Tensor, "B Q C"], place: Place, memory: Pyramid) -> Float[Tensor, "B Q C"]:
        dropout = self.dropout if self.training else 0.0
        return self.output(attend(*self.compared(hidden, place, memory), self.num_heads, memory.blocked, dropout))

    def compared(self, hidden: Float[Tensor, "B Q C"], place: Place, memory: Pyramid) -> Compared:
        assert place.sine is not None, "conditional attention compares sine encodings"
        key_position = self.key_position(memory.position)
        query, key = self.contents(hidden, place, memory, key_position)
        queries = self.side_by_side(query, self.query_sine(place.sine))
        keys = self.side_by_side(key, key_position)
        return Compared(queries, keys, self.value(memory.tokens))

    def contents(self, hidden: Float[Tensor, "B Q C"], place: Place, memory: Pyramid,  # noqa: ARG002
                 key_position: Float[Tensor, "B N C"]) -> tuple[Float[Tensor, "B Q C"], Float[Tensor, "B N C"]]:  # noqa: ARG002
        """What is compared as content, of the queries and of the memory."""
        return self.query_content(hidden), self.key_content(memory.tokens)

    def side_by_side(self, content: Float[Tensor, "B N C"], place: Float[Tensor, "B N C"]) -> Float[Tensor, "B N both"]:
        heads = [tensor.unflatten(-1, (self.num_heads, -1)) for tensor in (content, place)]
        return torch.cat(heads, dim=-1).flatten(2)


class FirstConditionalAttention(ConditionalAttention):
    """The first layer's: its queries have no content yet, so positions are added to theirs and the memory's."""

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(width, num_heads, dropout)
        self.query_position = linear(width)

    def contents(self, hidden: Float[Tensor, "B Q C"], place: Place, memory: Pyramid,
                 key_position: Float[Tensor, "B N C"]) -> tuple[Float[Tensor, "B Q C"], Float[Tensor, "B N C"]]:
        return (self.query_content(hidden) + self.query_position(place.position),
                self.key_content(memory.tokens) + key_position)
