"""Attention that compares every query with every key (DETR, arXiv 2005.12872, section 3.2 and appendix A.1)."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deformable_detr.structures import Place, Pyramid


def attend(query: Float[Tensor, "B Q E"], key: Float[Tensor, "B N E"], value: Float[Tensor, "B N C"], num_heads: int,
           blocked: Bool[Tensor, "B _ N"] | None, dropout: float = 0.0) -> Float[Tensor, "B Q C"]:
    """softmax(Q K^T / sqrt(E / M)) V in each of M heads; True in `blocked` where a query must not attend to a key."""
    query, key, value = (tensor.unflatten(-1, (num_heads, -1)).transpose(1, 2) for tensor in (query, key, value))
    allowed = None if blocked is None else ~blocked[:, None]
    # On the CPU only heads of equal width have a kernel that does not write down every weight: filling up is faster.
    missing = query.shape[-1] - value.shape[-1]
    filled = F.pad(value, (0, missing)) if missing else value
    attended = F.scaled_dot_product_attention(query, key, filled, attn_mask=allowed, dropout_p=dropout)
    return attended[..., :value.shape[-1]].transpose(1, 2).flatten(2)


def dense_weights(query: Float[Tensor, "B Q E"], key: Float[Tensor, "B N E"], num_heads: int,
                  blocked: Bool[Tensor, "B _ N"] | None) -> Float[Tensor, "B M Q N"]:
    """The weights that `attend` gives to the values, which its kernels never write down."""
    query, key = (tensor.unflatten(-1, (num_heads, -1)).transpose(1, 2) for tensor in (query, key))
    logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (logits if blocked is None else logits.masked_fill(blocked[:, None], -torch.inf)).softmax(-1)


class Compared(NamedTuple):
    """What a dense attention compares, query with key, and what it sums."""

    query: Float[Tensor, "B Q E"]
    key: Float[Tensor, "B N E"]
    value: Float[Tensor, "B N C"]


class DenseAttention(nn.Module):
    """The projections of multi-head attention, packed as in `nn.MultiheadAttention`; subclasses choose what attends."""

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, query: Float[Tensor, "B Q C"], key: Float[Tensor, "B N C"] | None,
                value: Float[Tensor, "B N C"]) -> Compared:
        """Without `key` the keys are projected from what the queries are, in one product."""
        inputs, widths = ([query, value], (2, 1)) if key is None else ([query, key, value], (1, 1, 1))
        rows = [width * query.shape[-1] for width in widths]
        weights, biases = self.in_proj_weight.split(rows), self.in_proj_bias.split(rows)
        *made, value = (F.linear(*parts) for parts in zip(inputs, weights, biases, strict=True))
        query, key = made[0].chunk(2, dim=-1) if key is None else made
        return Compared(query, key, value)

    def attend(self, compared: Compared, blocked: Bool[Tensor, "B _ N"] | None) -> Float[Tensor, "B Q C"]:
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(attend(*compared, self.num_heads, blocked, dropout))


class QuerySelfAttention(DenseAttention):
    """The decoder's queries attend to each other."""

    def forward(self, hidden: Float[Tensor, "B Q C"], place: Place,
                blocked: Bool[Tensor, "B Q Q"] | None) -> Float[Tensor, "B Q C"]:
        return self.attend(self.compared(hidden, place), blocked)

    def compared(self, hidden: Float[Tensor, "B Q C"], place: Place) -> Compared:
        return self.project(hidden + place.position, None, hidden)


class TokenSelfAttention(DenseAttention):
    """The encoder's tokens attend to each other, but not to padding."""

    def forward(self, tokens: Float[Tensor, "B N C"], place: Place, memory: Pyramid) -> Float[Tensor, "B N C"]:
        return self.attend(self.compared(tokens, place, memory), memory.blocked)

    def compared(self, tokens: Float[Tensor, "B N C"], place: Place, memory: Pyramid) -> Compared:  # noqa: ARG002
        return self.project(tokens + place.position, None, tokens)


class MemoryAttention(DenseAttention):
    """The decoder's queries attend to the memory, but not to padding."""

    def forward(self, hidden: Float[Tensor, "B Q C"], place: Place, memory: Pyramid) -> Float[Tensor, "B Q C"]:
        return self.attend(self.compared(hidden, place, memory), memory.blocked)

    def compared(self, hidden: Float[Tensor, "B Q C"], place: Place, memory: Pyramid) -> Compared:
        return self.project(hidden + place.position, memory.tokens + memory.position, memory.tokens)
