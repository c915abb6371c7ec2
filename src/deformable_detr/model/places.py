"""Where the queries of a decoder layer are: given once, or made from their boxes in every layer.

All take the index of the layer, the hidden states and the references at its beginning, the queries and the memory.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deformable_detr.model.feedforward import mlp
from deformable_detr.model.position import anchor_position
from deformable_detr.structures import Place, Pyramid, Queries


def scaled(reference: Float[Tensor, "B Q R"], memory: Pyramid) -> Float[Tensor, "B Q L R"]:
    """From [0, 1] of the unpadded image to [0, 1] of each level's padded map."""
    ratios = memory.valid_ratios.repeat(1, 1, reference.shape[-1] // 2)
    return reference[:, :, None] * ratios[:, None]


class GivenPlace(nn.Module):
    """The position stays what the queries brought (DETR, Deformable DETR)."""

    def forward(self, layer: int, hidden: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q R"],  # noqa: ARG002
                queries: Queries, memory: Pyramid) -> Place:
        assert queries.position is not None, "these queries have no position of their own"
        return Place(queries.position, scaled(reference, memory))


class BoxPlace(nn.Module):
    """The position comes from the box, on the finest padded map (DINO, as DAB-DETR, arXiv 2201.12329, section 4.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.position = mlp(2 * width, width, width)

    def forward(self, layer: int, hidden: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q R"],  # noqa: ARG002
                queries: Queries, memory: Pyramid) -> Place:  # noqa: ARG002
        references = scaled(reference, memory)
        return Place(self.position(anchor_position(references[:, :, 0], self.width).to(hidden.dtype)), references)


class ScaledBoxPlace(BoxPlace):
    """As `BoxPlace`; from the second layer on the content scales each channel (DAB-Deformable-DETR)."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.scale = mlp(width, width, width)

    def forward(self, layer: int, hidden: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q R"],
                queries: Queries, memory: Pyramid) -> Place:
        place: Place = super().forward(layer, hidden, reference, queries, memory)
        return place if layer == 0 else Place(place.position * self.scale(hidden), place.reference)


class ModulatedPlace(nn.Module):
    """DAB-DETR's place: a position, and a sine encoding that reaches further along a box's longer side.

    The sine encoding is scaled by the content from the second layer on (section 4.2), and its x and y halves by
    w_ref / w and h_ref / h, the size that the content expects over the box's own (section 4.4).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.position = mlp(2 * width, width, width)
        self.scale = mlp(width, width, width)
        self.expected_size = mlp(width, width, 2)

    def forward(self, layer: int, hidden: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q R"],
                queries: Queries, memory: Pyramid) -> Place:  # noqa: ARG002
        encoded = anchor_position(reference, self.width).to(hidden.dtype)     # y, x, width, height
        sine = encoded[..., :self.width]
        if layer > 0:
            sine = sine * self.scale(hidden)
        # A small side is 0 in half precision.
        ratio = (self.expected_size(hidden).sigmoid() / reference[..., 2:]).to(hidden.dtype)    # of width and height
        y, x = sine.chunk(2, dim=-1)
        return Place(self.position(encoded), scaled(reference, memory),
                     torch.cat([y * ratio[..., 1:], x * ratio[..., :1]], dim=-1))
