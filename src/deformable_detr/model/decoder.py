"""Queries and memory -> Predictions: queries talk to each other, read the memory, and are refined (section 4.2)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deformable_detr.model.attention import DeformableAttention
from deformable_detr.model.feedforward import FeedForward
from deformable_detr.model.heads import LayerAnswer, RefiningHeads, SharedHead
from deformable_detr.structures import ExtraPredictions, Predictions, Pyramid, Queries


class DecoderLayer(nn.Module):
    """Self-attention among the queries, deformable cross-attention to the memory, a feed-forward network."""

    def __init__(self, cross_attention: DeformableAttention, width: int, ffn_width: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(width, cross_attention.num_heads, dropout, batch_first=True)
        self.self_attention_norm = nn.LayerNorm(width)
        self.cross_attention = cross_attention
        self.cross_attention_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(width, ffn_width, dropout)
        nn.init.xavier_uniform_(self.self_attention.out_proj.weight)

    def forward(self, hidden: Float[Tensor, "B Q C"], position: Float[Tensor, "B Q C"],
                reference: Float[Tensor, "B Q L R"], memory: Float[Tensor, "B N C"], pyramid: Pyramid,
                blocked: Bool[Tensor, "B Q Q"] | None = None) -> Float[Tensor, "B Q C"]:
        query = hidden + position
        mask = None if blocked is None else blocked.repeat_interleave(self.self_attention.num_heads, dim=0)
        told, _ = self.self_attention(query, query, hidden, need_weights=False, attn_mask=mask)
        hidden = self.self_attention_norm(hidden + self.dropout(told))
        read = self.cross_attention(hidden + position, reference, memory, pyramid.padding, pyramid.level_shapes)
        hidden = self.cross_attention_norm(hidden + self.dropout(read))
        return self.feed_forward(hidden)


class Decoder(nn.Module):
    """Decoder layers, each followed by its head."""

    def __init__(self, layers: list[DecoderLayer], heads: SharedHead | RefiningHeads) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.heads = heads

    def forward(self, queries: Queries, memory: Float[Tensor, "B N C"], pyramid: Pyramid) -> Predictions:
        hidden, reference = queries.content, queries.reference
        start = reference
        answers: list[LayerAnswer] = []
        for index, layer in enumerate(self.layers):
            # From [0, 1] of the unpadded image to [0, 1] of each level's padded map.
            ratios = pyramid.valid_ratios.repeat(1, 1, reference.shape[-1] // 2)
            hidden = layer(hidden, queries.position, reference[:, :, None] * ratios[:, None], memory, pyramid,
                           queries.blocked)
            answer: LayerAnswer = self.heads(index, hidden, start)
            reference, start = answer.reference, answer.start
            answers.append(answer)
        return _split(torch.stack([answer.logits for answer in answers]),
                      torch.stack([answer.boxes for answer in answers]), queries)


def _split(logits: Float[Tensor, "layers B Q K"], boxes: Float[Tensor, "layers B Q 4"],
           queries: Queries) -> Predictions:
    """What is said of the ordinary queries, and apart from it what of the extra ones."""
    if not queries.num_extra:
        return Predictions(logits, boxes, queries.proposals)
    ordinary = logits.shape[2] - queries.num_extra
    extra = ExtraPredictions(logits[:, :, ordinary:], boxes[:, :, ordinary:])
    return Predictions(logits[:, :, :ordinary], boxes[:, :, :ordinary], queries.proposals, extra)
