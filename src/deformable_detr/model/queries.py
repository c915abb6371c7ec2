"""memory -> Queries: learned ones, or the encoder's own proposals (paper, section 4.3, two-stage)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deformable_detr.model.heads import Head
from deformable_detr.model.position import box_position
from deformable_detr.model.pyramid import token_centres
from deformable_detr.structures import ExtraQueries, Proposals, Pyramid, Queries

SMALLEST_PROPOSAL = 0.05   # side of a proposal on the finest level; doubles with each level
EDGE = 0.01                # proposals nearer to 0 or 1 than this are no proposals


class LearnedQueries(nn.Module):
    """The same learned content and position for every image; the reference point is read from the position."""

    def __init__(self, num_queries: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_queries, 2 * width)   # position first, then content
        self.reference = nn.Linear(width, 2)
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)

    def forward(self, memory: Float[Tensor, "B N C"], pyramid: Pyramid,  # noqa: ARG002
                extra: ExtraQueries | None = None) -> Queries:
        if extra is not None:
            raise ValueError("extra_queries: expected none for learned queries, since only a two-stage detector "
                             "starts from boxes")
        position, content = self.embedding.weight.expand(len(memory), -1, -1).chunk(2, dim=-1)
        return Queries(content, position, self.reference(position).float().sigmoid(), proposals=None)


class ProposalQueries(nn.Module):
    """The `num_queries` best-scored proposals of the tokens; position and content are made from their boxes.

    With `mixed` the boxes make the position alone, and each rank has a content that is learned: what a token
    saw may be of several objects (DINO, arXiv 2203.03605, section 3.4).
    """

    def __init__(self, num_queries: int, width: int, num_classes: int, mixed: bool = False) -> None:
        super().__init__()
        self.num_queries, self.width = num_queries, width
        self.memory_projection = nn.Linear(width, width)
        self.memory_norm = nn.LayerNorm(width)
        self.box_projection = nn.Linear(2 * width, width if mixed else 2 * width)
        self.box_norm = nn.LayerNorm(self.box_projection.out_features)
        self.content = nn.Embedding(num_queries, width) if mixed else None
        self.head = Head(width, num_classes, size_bias=0)
        for layer in (self.memory_projection, self.box_projection):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, memory: Float[Tensor, "B N C"], pyramid: Pyramid, extra: ExtraQueries | None = None) -> Queries:
        proposals = self.propose(memory, pyramid)
        scores = proposals.logits[..., 0]
        best = scores.topk(min(self.num_queries, scores.shape[1]), dim=1).indices
        reference = proposals.boxes.gather(1, best[..., None].expand(-1, -1, 4)).detach()
        if extra is None:
            return Queries(*self.embed(reference), reference, proposals)
        num_extra = extra.boxes.shape[1]
        reference = torch.cat([reference, extra.boxes], dim=1)
        return Queries(*self.embed(reference, num_extra), reference, proposals, num_extra, extra.blocked(best.shape[1]))

    def embed(self, boxes: Float[Tensor, "B Q 4"],
              num_extra: int = 0) -> tuple[Float[Tensor, "B Q C"], Float[Tensor, "B Q C"]]:
        """Content and position of queries that start from `boxes`, of which the last `num_extra` are extra ones."""
        embedding = self.box_norm(self.box_projection(box_position(boxes, self.width)))
        if self.content is None:
            position, content = embedding.chunk(2, dim=-1)
            return content, position
        ranks = self.content.weight[:boxes.shape[1] - num_extra]
        # An extra query has no rank: it says what they have in common.
        content = torch.cat([ranks, ranks.mean(0).expand(num_extra, -1)])
        return content.expand(len(boxes), -1, -1), embedding

    def propose(self, memory: Float[Tensor, "B N C"], pyramid: Pyramid) -> Proposals:
        """A score and a box from every token, those that are no proposals included: their box is (1, 1, 1, 1)."""
        boxes, usable = initial_boxes(pyramid)
        hidden = self.memory_norm(self.memory_projection(memory.masked_fill(~usable[..., None], 0)))
        start = torch.log(boxes / (1 - boxes)).masked_fill(~usable[..., None], torch.inf)
        return Proposals(self.head.classify(hidden), self.head.move(hidden, start))


def initial_boxes(pyramid: Pyramid) -> tuple[Float[Tensor, "B N 4"], Bool[Tensor, "B N"]]:
    """A box of the level's size around every token, cxcywh in [0, 1] of the unpadded image; and which to use."""
    centres = token_centres(pyramid)
    sides = torch.cat([centres.new_full((height * width, 2), SMALLEST_PROPOSAL * 2**level)
                       for level, (height, width) in enumerate(pyramid.level_shapes)])
    boxes = torch.cat([centres, sides.expand_as(centres)], dim=-1)
    inside = ((boxes > EDGE) & (boxes < 1 - EDGE)).all(-1)
    return boxes, inside & ~pyramid.padding
