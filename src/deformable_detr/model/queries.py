"""memory -> Queries: learned ones, or the encoder's own proposals (paper, section 4.2, two-stage)."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deformable_detr.boxes import at_least_float32
from deformable_detr.model.heads import Head
from deformable_detr.model.position import box_position
from deformable_detr.model.pyramid import token_centres
from deformable_detr.structures import ExtraQueries, Proposals, Pyramid, Queries

SMALLEST_PROPOSAL = 0.05   # side of a proposal on the finest level; doubles with each level
EDGE = 0.01                # proposals closer than this to 0 or 1 are not used


class LearnedQueries(nn.Module):
    """The same learned content and position for every image; a linear layer maps the position to a reference point."""

    def __init__(self, num_queries: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_queries, 2 * width)   # position first, then content
        self.reference = nn.Linear(width, 2)
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)

    def forward(self, memory: Pyramid, extra: ExtraQueries | None = None) -> Queries:
        refuse_extra(extra)
        position, content = self.embedding.weight.expand(memory.tokens.shape[0], -1, -1).chunk(2, dim=-1)
        return Queries(content, position, at_least_float32(self.reference(position)).sigmoid())

    def slow_parameters(self) -> Iterator[nn.Parameter]:
        """Where to sample is learned slowly."""
        return self.reference.parameters()


class SlotQueries(nn.Module):
    """DETR's queries: a learned position each, no content and no reference (arXiv 2005.12872, section 3.2)."""

    def __init__(self, num_queries: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_queries, width)

    def forward(self, memory: Pyramid, extra: ExtraQueries | None = None) -> Queries:
        refuse_extra(extra)
        position = self.embedding.weight.expand(memory.tokens.shape[0], -1, -1)
        return Queries(torch.zeros_like(position), position, at_least_float32(position[..., :0]))


class AnchorQueries(nn.Module):
    """A learned box each, and a content that is zero (DAB-DETR, arXiv 2201.12329, section 4.2)."""

    def __init__(self, num_queries: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.anchors = nn.Embedding(num_queries, 4)     # in inverse-sigmoid space

    def forward(self, memory: Pyramid, extra: ExtraQueries | None = None) -> Queries:
        refuse_extra(extra)
        anchors = self.anchors.weight.expand(memory.tokens.shape[0], -1, -1)
        return Queries(self.content(anchors), None, at_least_float32(anchors).sigmoid())

    def content(self, anchors: Float[Tensor, "B Q 4"]) -> Float[Tensor, "B Q C"]:
        return anchors.new_zeros(*anchors.shape[:2], self.width)


class AnchorContentQueries(AnchorQueries):
    """As `AnchorQueries`, with a learned content each (DAB-Deformable-DETR)."""

    def __init__(self, num_queries: int, width: int) -> None:
        super().__init__(num_queries, width)
        self.contents = nn.Embedding(num_queries, width)

    def content(self, anchors: Float[Tensor, "B Q 4"]) -> Float[Tensor, "B Q C"]:
        return self.contents.weight.expand(anchors.shape[0], -1, -1)


def refuse_extra(extra: ExtraQueries | None) -> None:
    """Raise ValueError for extra queries, which start from boxes."""
    if extra is not None:
        raise ValueError("extra_queries: expected none for learned queries, since only a two-stage detector "
                         "starts from proposed boxes")


class Embedded(NamedTuple):
    """Queries made from boxes."""

    content: Float[Tensor, "B Q C"]
    position: Float[Tensor, "B Q C"] | None     # None: made from the box in every decoder layer


class BoxEmbedding(nn.Module):
    """Content and position both come from the box (paper, section 4.2 and appendix A.4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.projection = nn.Linear(2 * width, 2 * width)
        self.norm = nn.LayerNorm(2 * width)
        nn.init.xavier_uniform_(self.projection.weight)

    def forward(self, boxes: Float[Tensor, "B Q 4"], extra: ExtraQueries | None) -> Embedded:  # noqa: ARG002
        encoded = box_position(boxes, self.width).to(self.norm.weight.dtype)
        position, content = self.norm(self.projection(encoded)).chunk(2, dim=-1)
        return Embedded(content, position)


class LearnedContent(nn.Module):
    """The position comes from the box; each rank has a learned content ("mixed", DINO, arXiv 2203.03605, section 3.4).

    A token's features may mix several objects, so they make a poor content. An extra query has no rank: its content
    is the mean over the ranks.
    """

    def __init__(self, num_queries: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.projection = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.content = nn.Embedding(num_queries, width)
        nn.init.xavier_uniform_(self.projection.weight)

    def forward(self, boxes: Float[Tensor, "B Q 4"], extra: ExtraQueries | None) -> Embedded:
        num_extra = 0 if extra is None else extra.boxes.shape[1]
        ranks = self.content.weight[:boxes.shape[1] - num_extra]
        content = torch.cat([ranks, ranks.mean(0).expand(num_extra, -1)])
        encoded = box_position(boxes, self.width).to(self.norm.weight.dtype)
        return Embedded(content.expand(boxes.shape[0], -1, -1), self.norm(self.projection(encoded)))


class LabelledContent(nn.Module):
    """Each rank has a learned content, and so has each class that an extra query may claim (DINO, section 3.3)."""

    def __init__(self, num_queries: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.content = nn.Embedding(num_queries, width)
        self.labels = nn.Embedding(num_classes + 1, width)      # as published; its last row is never used
        nn.init.xavier_uniform_(self.content.weight)

    def forward(self, boxes: Float[Tensor, "B Q 4"], extra: ExtraQueries | None) -> Embedded:
        num_extra = 0 if extra is None else extra.boxes.shape[1]
        content = self.content.weight[:boxes.shape[1] - num_extra].expand(boxes.shape[0], -1, -1)
        # Processes that share a training expect a gradient of every parameter in every step, be it zero.
        content = content + 0 * self.labels.weight[0, 0]
        if extra is not None:
            assert extra.labels is not None, "these extra queries need labels"
            claimed = self.labels(extra.labels.clamp(min=0)).masked_fill(extra.labels[..., None] < 0, 0)
            content = torch.cat([content, claimed], dim=1)
        return Embedded(content, None)


def score_of_first_class(logits: Float[Tensor, "B N K"]) -> Float[Tensor, "B N"]:
    """Deformable DETR trains only class 0 of its proposals, as "an object"."""
    return logits[..., 0]


def score_of_best_class(logits: Float[Tensor, "B N K"]) -> Float[Tensor, "B N"]:
    """DINO's proposals are scored by their best class."""
    return logits.amax(-1)


class ProposalQueries(nn.Module):
    """The `num_queries` best proposals by `score`; `embedding` makes content and position of their boxes."""

    def __init__(self, num_queries: int, width: int, embedding: nn.Module, head: Head,
                 score: Callable[[Tensor], Tensor] = score_of_first_class) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.memory_projection = nn.Linear(width, width)
        self.memory_norm = nn.LayerNorm(width)
        self.embedding = embedding
        self.head = head
        self.score = score
        nn.init.xavier_uniform_(self.memory_projection.weight)

    def forward(self, memory: Pyramid, extra: ExtraQueries | None = None) -> Queries:
        proposals = self.propose(memory)
        assert proposals.chosen is not None
        num_queries = proposals.chosen.shape[1]
        reference = proposals.boxes.gather(1, proposals.chosen[..., None].expand(-1, -1, 4)).detach()
        if extra is not None:
            reference = torch.cat([reference, extra.boxes], dim=1)
        embedded: Embedded = self.embedding(reference, extra)
        return Queries(embedded.content, embedded.position, reference, proposals,
                       num_extra=reference.shape[1] - num_queries,
                       blocked=None if extra is None else extra.blocked(num_queries))

    def propose(self, memory: Pyramid) -> Proposals:
        """A score and a box from every token; a token that cannot propose gets the box (1, 1, 1, 1)."""
        boxes, usable = initial_boxes(memory)
        hidden = self.memory_norm(self.memory_projection(memory.tokens.masked_fill(~usable[..., None], 0)))
        start = torch.log(boxes / (1 - boxes)).masked_fill(~usable[..., None], torch.inf)
        logits = self.head.classify(hidden)
        chosen = self.score(logits).topk(min(self.num_queries, logits.shape[1]), dim=1).indices
        return Proposals(logits, self.head.move(hidden, start), chosen)


def scores_objects(queries: nn.Module) -> bool:
    """Whether class 0 of the proposals means an object of any class."""
    return isinstance(queries, ProposalQueries) and queries.score is score_of_first_class


def initial_boxes(memory: Pyramid) -> tuple[Float[Tensor, "B N 4"], Bool[Tensor, "B N"]]:
    """A box of the level's size around every token, cxcywh in [0, 1] of the unpadded image; and which to use."""
    centres = token_centres(memory)
    sides = torch.cat([centres.new_full((height * width, 2), SMALLEST_PROPOSAL * 2**level)
                       for level, (height, width) in enumerate(memory.level_shapes)])
    boxes = torch.cat([centres, sides.expand_as(centres)], dim=-1)
    inside = ((boxes > EDGE) & (boxes < 1 - EDGE)).all(-1)
    return boxes, inside & ~memory.padding
