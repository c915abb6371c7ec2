"""An exported file beside PyTorch on the same images: how far its answers are from ours."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.export.cases import Case
from deformable_detr.export.graph import CHOSEN, DETECTIONS, RAW_OUTPUTS, BestDetections, DetectorGraph
from deformable_detr.export.sessions import Session
from deformable_detr.structures import Predictions, Proposals, Pyramid

CLEAR_RANK = 1e-4       # a score this far from its neighbours has the same rank in every runtime


@dataclass(frozen=True)
class Limits:
    """How far a file may be from PyTorch."""

    logits: float = 1e-3
    pixels: float = 0.1         # of a box's edges, in the original image
    scores: float = 1e-3


@dataclass(frozen=True)
class Difference:
    """The largest differences of a batch, from PyTorch's answers."""

    case: str
    logits: float
    pixels: float       # of the edges of boxes, in the original image
    scores: float       # of the best detections, and of the tokens that were chosen for queries

    def is_within(self, limits: Limits) -> bool:
        return all(getattr(self, field.name) <= getattr(limits, field.name) for field in fields(limits))  # NaN is not

    def __str__(self) -> str:
        return f"{self.case}: logits differ by {self.logits:.1e}, boxes by {self.pixels:.1e} pixels"


def compare(session: Session, graph: DetectorGraph, case: Case) -> Difference:
    """One batch through both."""
    arrays = session.run(case.images.numpy(), case.sizes.numpy())
    found = {name: torch.from_numpy(values.copy()) for name, values in arrays.items()}
    expected, distance = _expected(graph, case, found.get(*CHOSEN))
    logits, boxes = (name for name in RAW_OUTPUTS)
    extent = torch.tensor(case.originals).float().flip(-1).repeat(1, 2)[:, None]   # width, height, width, height
    pixels = (cxcywh_to_xyxy(found[boxes]) - cxcywh_to_xyxy(expected[boxes])) * extent
    scores, edges = (0.0, 0.0) if graph.best is None else _of_detections(found, expected, extent, graph)
    return Difference(str(case), _largest(found[logits] - expected[logits]), max(_largest(pixels), edges),
                      max(distance, scores))


@torch.no_grad()
def _expected(graph: DetectorGraph, case: Case, chosen: Tensor | None) -> tuple[dict[str, Tensor], float]:
    """PyTorch's outputs, and how far the scores of the tokens chosen by the file are from those of the best.

    Tokens whose scores differ by a rounding may change places in another runtime, and so do the queries that they
    become. Whether the choice was right is therefore one question, and what follows from it another.
    """
    queries: Any = graph.model.queries
    distances: list[float] = []
    with nullcontext() if chosen is None else _choosing(queries, chosen, distances):
        values = graph(case.images, case.sizes)
    names = [*RAW_OUTPUTS, *(() if chosen is None else CHOSEN), *(() if graph.best is None else DETECTIONS)]
    return dict(zip(names, values, strict=True)), max(distances, default=0.0)


@contextmanager
def _choosing(queries: Any, chosen: Int64[Tensor, "B Q"], distances: list[float]) -> Iterator[None]:
    propose = queries.propose

    def with_these(memory: Pyramid) -> Proposals:
        proposals: Proposals = propose(memory)
        scores = queries.score(proposals.logits)
        assert proposals.chosen is not None
        distances.append(_largest(scores.gather(1, chosen) - scores.gather(1, proposals.chosen)))
        return replace(proposals, chosen=chosen)

    queries.propose = with_these
    try:
        yield
    finally:
        del queries.propose     # the method is there again


def _of_detections(found: dict[str, Tensor], expected: dict[str, Tensor], extent: Float[Tensor, "B 1 4"],
                   graph: DetectorGraph) -> tuple[float, float]:
    """The largest differences of scores, and of the edges of boxes in pixels: those whose rank is certain.

    A class that differs there counts as a box that is infinitely far away.
    """
    boxes, scores, labels = DETECTIONS
    clear = _clear_ranks(expected, graph)
    pixels = ((found[boxes] - expected[boxes]) * extent).abs().amax(-1)
    pixels = pixels.masked_fill(found[labels] != expected[labels], torch.inf)
    return _largest(found[scores] - expected[scores]), _largest(pixels[clear])


def _clear_ranks(expected: dict[str, Tensor], graph: DetectorGraph) -> Bool[Tensor, "B T"]:
    """Which of the best scores are far from their neighbours, among them the best score that was left out."""
    logits, boxes = (expected[name][None] for name in RAW_OUTPUTS)
    num_found = expected[DETECTIONS[1]].shape[1]
    predictions = Predictions(logits, boxes, no_object=graph.model.decoder.no_object)
    _, scores, _ = BestDetections(num_found + 1)(predictions)
    wide = scores.diff(dim=-1) < -CLEAR_RANK
    end = torch.ones_like(scores[:, :1], dtype=torch.bool)
    return torch.cat([end, wide], 1)[:, :num_found] & torch.cat([wide, end], 1)[:, :num_found]


def _largest(values: Tensor) -> float:
    """NaN if any is."""
    return float(values.abs().max()) if values.numel() else 0.0
