"""The root that every paper shares. Its `forward` is the table of contents: each line is a file of this folder."""

from typing import Any

from torch import nn

from deformable_detr.model.backbone import Backbone
from deformable_detr.model.decoder import Decoder
from deformable_detr.model.encoder import Encoder
from deformable_detr.model.pyramid import PyramidBuilder, SingleMap
from deformable_detr.structures import ExtraQueries, ImageBatch, Predictions


class Network(nn.Module):
    """Images in, classes and boxes out, through five parts; a file of `papers/` chooses them.

    `config` describes the parts to whoever saves or rebuilds the network; its `forward` never reads it.
    """

    def __init__(self, config: Any, backbone: Backbone, pyramid: PyramidBuilder | SingleMap, encoder: Encoder,
                 queries: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.config = config
        self.backbone, self.pyramid, self.encoder = backbone, pyramid, encoder
        self.queries, self.decoder = queries, decoder

    def forward(self, batch: ImageBatch, extra_queries: ExtraQueries | None = None) -> Predictions:
        """Classes and boxes of every decoder layer; `extra_queries` are further boxes that training adds as queries.

        Raises ValueError for extra queries where the detector's queries do not start from boxes.
        """
        features = self.backbone(batch)                     # C3..C5
        pyramid = self.pyramid(features)                    # L levels as one token sequence (B, N, C)
        memory = self.encoder(pyramid)                      # the same after the encoder
        queries = self.queries(memory, extra_queries)       # content, position, reference (B, Q, .)
        return self.decoder(queries, memory)                # logits and boxes of every layer
