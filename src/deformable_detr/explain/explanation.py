"""Where a detector looked when it found what it found, and when it did not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.detections import Detections
from deformable_detr.explain import attending
from deformable_detr.explain.collecting import Call, Collector
from deformable_detr.model.network import Network
from deformable_detr.papers.config import Config
from deformable_detr.structures import LevelShapes, Predictions
from deformable_detr.text import printable

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True)
class Reading:
    """What one token or query reads: points with their weights, or a map of weights."""

    locations: Float[Tensor, "M L P 2"] | None
    weights: Float[Tensor, "M L P"] | None
    attention: Float[Tensor, "M H W"] | None


@dataclass(frozen=True)
class Candidate:
    """A query near a place, with its answer."""

    query: int
    name: str                   # of its best class
    score: float
    box: tuple[float, float, float, float]      # xyxy in pixels of the image
    distance: float             # pixels from the place to the box, 0 inside
    scores: tuple[float, ...]   # of the best class after each decoder layer
    verdict: str                # what became of it, such as "below the threshold 0.50"


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Where each query looked in one image, and what it answered, decoder layer by decoder layer.

    Lists have an entry for each decoder layer; tensors are on the CPU, places in [0, 1] of the upright image. Papers
    with deformable attention have `locations` and `weights`, those with dense attention `attention`; the others are
    None. What the encoder reads, and the values that are summed, are computed when they are asked for, from the
    weights that the model has then.
    """

    name: str                                           # of the image's file
    image: "PIL.Image.Image"                            # upright
    detections: Detections                              # `detections.queries` are the queries that found them
    class_names: tuple[str, ...]
    threshold: float                                    # that a score had to reach
    config: Config
    references: list[Float[Tensor, "Q _"]]              # around which a layer looks: none (0), points or cxcywh boxes
    boxes: list[Float[Tensor, "Q 4"]]                   # cxcywh, after each layer
    scores: list[Float[Tensor, "Q"]]                    # of each query's best class, after each layer
    labels: list[Int64[Tensor, "Q"]]                    # that class
    self_attention: list[Float[Tensor, "Q Q"]]          # how much a query listens to each other; the mean over heads
    locations: list[Float[Tensor, "Q M L P 2"]] | None  # x and y
    weights: list[Float[Tensor, "Q M L P"]] | None      # which sum to 1 over the levels and points of a head
    attention: list[Float[Tensor, "Q M H W"]] | None    # which sums to 1 over the map
    level_shapes: LevelShapes                           # (height, width) of each level
    valid_shapes: LevelShapes                           # the same without padding
    strides: list[int]                                  # pixels of the model's input to a token of each level
    _encoder: list[Call] = field(default_factory=list)
    _decoder: list[Call] = field(default_factory=list)

    def __repr__(self) -> str:
        heads, levels = self.config.num_heads, len(self.level_shapes)
        looks = (f"{heads} heads, dense attention" if self.weights is None else
                 f"{heads} heads x {levels} levels x {self.weights[0].shape[-1]} points")
        return (f"Explanation of {printable(self.name)}: {len(self.detections)} detections by {len(self.boxes[0])} "
                f"queries, {len(self.boxes)} decoder layers, {looks}")

    @property
    def queries(self) -> Int64[Tensor, "T"]:
        """The query that found each detection."""
        assert self.detections.queries is not None
        return torch.from_numpy(self.detections.queries)

    def reading(self, query: int, layer: int = -1) -> Reading:
        """What a query read in a decoder layer, by default the last one."""
        self._check("query", query, len(self.boxes[0]))
        self._check_layer(layer, len(self.boxes))
        return Reading(*(None if layers is None else layers[layer][query]
                         for layers in (self.locations, self.weights, self.attention)))

    def encoder(self, layer: int, level: int, y: int, x: int) -> Reading:
        """What the token in row `y` and column `x` of a level reads in a layer of the encoder.

        Raises ValueError for a layer or a token that there is not.
        """
        self._check_layer(layer, len(self._encoder))
        self._check("level", level, len(self.level_shapes))
        height, width = self.level_shapes[level]
        self._check("y", y, height)
        self._check("x", x, width)
        start = sum(rows * columns for rows, columns in self.level_shapes[:level])
        return self.encoder_readings(layer, [start + y * width + x])[0]

    def encoder_readings(self, layer: int, tokens: Sequence[int]) -> list[Reading]:
        """What these tokens, counted over all levels, read in a layer of the encoder."""
        call, rows = self._encoder[layer], torch.tensor(tokens)
        if attending.is_deformable(call):
            read = attending.sampling(call, rows)
            return [Reading(*each, None) for each in zip(read.locations, read.weights, strict=True)]
        return [Reading(None, None, each) for each in attending.dense_attention(call, rows)]

    def values(self, layer: int) -> list[Float[Tensor, "M _ _ D"]]:
        """The maps that a layer of the decoder samples, a list over levels; zero at padding.

        Raises ValueError for dense attention, which samples nothing.
        """
        self._check_layer(layer, len(self._decoder))
        return self._values(self._decoder[layer])

    def encoder_values(self, layer: int) -> list[Float[Tensor, "M _ _ D"]]:
        """The maps that a layer of the encoder samples, as for `values`."""
        self._check_layer(layer, len(self._encoder))
        return self._values(self._encoder[layer])

    def nearest(self, x: float, y: float, count: int = 5) -> list[Candidate]:
        """The queries whose last boxes come nearest to a place in pixels: why was nothing found there?

        Boxes that cover the place come first, among equals the best score.
        """
        width, height = self.image.size
        corners = cxcywh_to_xyxy(self.boxes[-1]) * torch.tensor([width, height, width, height])
        place = torch.tensor([x, y], dtype=corners.dtype)
        distance = torch.maximum(corners[:, :2] - place, place - corners[:, 2:]).clamp(min=0).norm(dim=-1)
        order = sorted(range(len(corners)), key=lambda query: (float(distance[query]), -float(self.scores[-1][query])))
        return [self._candidate(query, corners[query], float(distance[query])) for query in order[:count]]

    def _candidate(self, query: int, corners: Float[Tensor, "4"], distance: float) -> Candidate:
        x0, y0, x1, y1 = corners.tolist()
        score = float(self.scores[-1][query])
        if query in self.queries:
            verdict = "found"
        elif score < self.threshold:
            verdict = f"below the threshold {self.threshold:.2f}"
        else:
            verdict = "left out: it overlaps a better one of its class, or enough were better"
        return Candidate(query, self.class_names[int(self.labels[-1][query])], score, (x0, y0, x1, y1), distance,
                         tuple(float(scores[query]) for scores in self.scores), verdict)

    def draw(self, index: int, layer: int = -1) -> "PIL.Image.Image":
        """The image with a detection as a decoder layer saw it, by default the last one.

        Its box after that layer, the reference, and what the layer read: points, larger and more opaque the greater
        their weights and coloured by level, or the summed attention. A small image is enlarged. Raises ValueError for
        a detection or a layer that there is not.
        """
        if not len(self.detections):
            raise ValueError("index: nothing was found in this image; `draw_query` draws any query")
        self._check("index", index, len(self.detections))
        return self.draw_query(int(self.queries[index]), layer)

    def draw_query(self, query: int, layer: int = -1) -> "PIL.Image.Image":
        """As `draw`, for any query, such as one of `nearest`."""
        from deformable_detr.explain.drawing import draw_query

        return draw_query(self, query, layer)

    def page(self, path: str | Path) -> None:
        """Write the page: one file that needs no network. An older file is replaced as a whole.

        Raises OSError where it cannot be written.
        """
        from deformable_detr.explain.page import render_explanation
        from deformable_detr.files import write_whole

        write_whole(Path(path), render_explanation(self))

    def _repr_html_(self) -> str:
        """The page, for a notebook."""
        from deformable_detr.explain.page import framed

        return framed(self)

    @staticmethod
    def _values(call: Call) -> list[Float[Tensor, "M _ _ D"]]:
        if not attending.is_deformable(call):
            raise ValueError("values: this detector's attention is dense; it samples no maps")
        return attending.values(call)

    @staticmethod
    def _check_layer(layer: int, count: int) -> None:
        if not -count <= layer < count:
            raise ValueError(f"layer: expected {-count} to {count - 1}, got {layer}")

    @staticmethod
    def _check(name: str, index: int, count: int) -> None:
        if not 0 <= index < count:
            raise ValueError(f"{name}: expected 0 to {count - 1}, got {index}")


def explain(collected: Collector, predictions: Predictions, detections: Detections, image: "PIL.Image.Image",
            name: str, class_names: Sequence[str], threshold: float) -> Explanation:
    """The explanation of the first image of the run that was collected; its `detections` are among the predictions."""
    cross = collected.cross_attention
    memory = cross[0].inputs["memory"]
    best = [predictions.scores(layer)[0].cpu().max(dim=-1) for layer in range(len(predictions.logits))]
    sampled = [attending.sampling(call) for call in cross if attending.is_deformable(call)]
    dense = [attending.dense_attention(call) for call in cross if not attending.is_deformable(call)]
    return Explanation(
        name, image, detections, tuple(class_names), threshold, collected.model.config,
        # Copies: what was made in inference mode can be neither changed nor differentiated.
        references=[reference[0].float().cpu().clone() for reference in collected.references],
        boxes=[boxes[0].float().cpu().clone() for boxes in predictions.boxes],
        scores=[each.values.clone() for each in best],
        labels=[each.indices.clone() for each in best],
        self_attention=[attending.self_attention(call) for call in collected.self_attention],
        locations=[each.locations for each in sampled] or None,
        weights=[each.weights for each in sampled] or None,
        attention=dense or None,
        level_shapes=memory.level_shapes,
        valid_shapes=attending.valid_shapes(memory),
        strides=_strides(collected.model, len(memory.level_shapes)),
        _encoder=collected.encoder,
        _decoder=cross)


def _strides(model: Network, num_levels: int) -> list[int]:
    """Those of the backbone's maps; each further level halves the one before."""
    coarsest = 16 if model.config.dilation else 32
    maps = [4, 8, 16, coarsest][-model.backbone.num_maps:]
    return maps + [coarsest * 2 ** step for step in range(1, num_levels - len(maps) + 1)]
