"""Linear layers: the feed-forward network after each attention, and small networks of a few of them."""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

SLICE = 2048    # tokens whose hidden values stay in the cache of a CPU


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, a residual connection and a layer norm."""

    def __init__(self, width: int, hidden_width: int, dropout: float, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden_width)
        self.activation = activation or nn.ReLU(inplace=True)
        self.contract = nn.Linear(hidden_width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        for layer in (self.expand, self.contract):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, tokens: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        hidden = self.dropout(self.activation(self.expand(tokens)))
        return self.norm(tokens + self.dropout(self.contract(hidden)))


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers from each width to the next, with ReLUs between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def by_slices(function: Callable[..., Tensor], *tokens: Float[Tensor, "B N _"]) -> Float[Tensor, "B N _"]:
    """`function(*tokens)`, which treats each token by itself: on a CPU, and without gradients, for some at a time.

    The values in between are then in the cache, and in memory that was just freed: new memory takes the system longer
    than a layer norm.
    """
    on_cpu = tokens[0].device.type == "cpu" and not torch.compiler.is_compiling()
    if torch.is_grad_enabled() or not on_cpu or tokens[0].shape[1] <= SLICE:
        return function(*tokens)
    slices = zip(*(each.split(SLICE, dim=1) for each in tokens), strict=True)
    return torch.cat([function(*each) for each in slices], dim=1)
