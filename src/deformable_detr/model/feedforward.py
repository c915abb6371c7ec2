"""The feed-forward network behind each attention."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Two linear layers with ReLU between, a residual around them and a layer norm behind."""

    def __init__(self, width: int, hidden_width: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden_width)
        self.contract = nn.Linear(hidden_width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        for layer in (self.expand, self.contract):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, tokens: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        hidden = self.dropout(F.relu(self.expand(tokens), inplace=True))
        return self.norm(tokens + self.dropout(self.contract(hidden)))
