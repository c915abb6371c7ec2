"""Queries and memory -> Predictions: queries attend to each other and to the memory, and are refined (section 4)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deformable_detr.model.feedforward import FeedForward
from deformable_detr.model.heads import Head, LayerHeads, SharedHead
from deformable_detr.model.refinement import Refinement
from deformable_detr.structures import ExtraPredictions, Place, Predictions, Pyramid, Queries


class DecoderLayer(nn.Module):
    """Self-attention among the queries, cross-attention to the memory, a feed-forward network.

    Each attention is followed by a residual sum and a layer norm.
    """

    def __init__(self, self_attention: nn.Module, cross_attention: nn.Module, width: int, dropout: float,
                 feed_forward: FeedForward) -> None:
        super().__init__()
        self.self_attention = self_attention
        self.self_attention_norm = nn.LayerNorm(width)
        self.cross_attention = cross_attention
        self.cross_attention_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = feed_forward

    def forward(self, hidden: Float[Tensor, "B Q C"], place: Place, memory: Pyramid,
                blocked: Bool[Tensor, "B Q Q"] | None = None) -> Float[Tensor, "B Q C"]:
        attended = self.self_attention(hidden, place, blocked)
        hidden = self.self_attention_norm(hidden + self.dropout(attended))
        attended = self.cross_attention(hidden, place, memory)
        hidden = self.cross_attention_norm(hidden + self.dropout(attended))
        return self.feed_forward(hidden)


class Decoder(nn.Module):
    """Decoder layers, each followed by its head.

    `places` decides where the queries are in each layer, `refinement` where the next layer starts; `norm` is applied
    to the hidden states before the heads.
    """

    def __init__(self, layers: list[DecoderLayer], heads: SharedHead | LayerHeads, places: nn.Module,
                 refinement: Refinement, norm: nn.Module | None = None, no_object: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.heads = heads
        self.places = places
        self.refinement = refinement
        self.norm = norm or nn.Identity()
        self.no_object = no_object

    def forward(self, queries: Queries, memory: Pyramid) -> Predictions:
        hidden, reference = queries.content, queries.reference
        start = reference
        logits, boxes = [], []
        for index, layer in enumerate(self.layers):
            place = self.places(index, hidden, reference, queries, memory)
            hidden = layer(hidden, place, memory, queries.blocked)
            head: Head = self.heads.of_layer(index)
            layer_logits, layer_boxes = head(self.norm(hidden), start)
            reference, start = self.refinement(head, hidden, reference, start, layer_boxes)
            logits.append(layer_logits)
            boxes.append(layer_boxes)
        return self.split_extra(torch.stack(logits), torch.stack(boxes), queries)

    def split_extra(self, logits: Float[Tensor, "layers B Q K"], boxes: Float[Tensor, "layers B Q 4"],
                    queries: Queries) -> Predictions:
        """The predictions of the ordinary queries, and apart from them those of the extra ones."""
        if not queries.num_extra:
            return Predictions(logits, boxes, queries.proposals, no_object=self.no_object)
        ordinary = logits.shape[2] - queries.num_extra
        extra = ExtraPredictions(logits[:, :, ordinary:], boxes[:, :, ordinary:])
        return Predictions(logits[:, :, :ordinary], boxes[:, :, :ordinary], queries.proposals, extra, self.no_object)
