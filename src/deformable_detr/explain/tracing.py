"""From images to detections: each stage with the statement that made it, in the order of computation.

The functions below follow the model's forward, part by part. A stage is recorded when the statement that makes it has
been computed. Only what never leaves a kernel is computed a second time.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deformable_detr.detections import PUBLISHED, Detections, Postprocessing, best_detections
from deformable_detr.explain.recorder import Recorder, Stage
from deformable_detr.images import ImageSource, read_image
from deformable_detr.model.attention import DeformableAttention
from deformable_detr.model.backbone import Backbone
from deformable_detr.model.decoder import Decoder, DecoderLayer
from deformable_detr.model.encoder import Encoder, GivenPosition
from deformable_detr.model.feedforward import FeedForward
from deformable_detr.model.network import Network
from deformable_detr.model.places import GivenPlace
from deformable_detr.model.pyramid import PyramidBuilder, SingleMap
from deformable_detr.model.queries import Embedded, LearnedQueries, ProposalQueries, SlotQueries
from deformable_detr.ops import fused_ms_deform_attn
from deformable_detr.ops.reference import attention_weights
from deformable_detr.preprocessing import Preprocessing, prepare_image
from deformable_detr.structures import (
    ImageBatch,
    ImageSize,
    LevelShapes,
    Place,
    Predictions,
    Queries,
    starts_of,
    to_device,
)

Stop = Callable[[Stage], bool]


def nowhere(stage: Stage) -> bool:  # noqa: ARG001
    """Stop at no stage."""
    return False


def trace_images(model: Network, images: Sequence[ImageSource], preprocessing: Preprocessing | None = None,
                 names: Sequence[str] | None = None, *, postprocessing: Postprocessing = PUBLISHED,
                 every_layer: bool = False, stop: Stop = nowhere, keep: bool = False,
                 warm: bool = False) -> list[Stage]:
    """`trace` for images of any kind as one batch; without `preprocessing` they are normalised, but not resized.

    Detections are in pixels of the images as given. Raises ValueError for no images, ImageError for one that cannot be
    read.
    """
    with Recorder(stop, keep=keep) as record:
        decoded = []
        for index, image in enumerate(images):
            read = record.function(read_image, {"return": lambda values, name=f"image {index}": (
                record.add(read_image, name, "H W 3", values))})
            record.start_clock()
            decoded.append(read(image))
        sizes = [(image.shape[0], image.shape[1]) for image in decoded]
        rules = [preprocessing or Preprocessing(size=min(size), max_size=max(size)) for size in sizes]
        prepared = []
        for index, (image, rule) in enumerate(zip(decoded, rules, strict=True)):
            prepare = record.function(prepare_image, {"return": lambda values, name=f"image {index}": (
                record.add(prepare_image, name, "3 H W", values))})
            prepared.append(prepare(image, rule))
        to_batch = record.function(ImageBatch.from_images, {"return": lambda batch: _record_batch(record, batch)})
        batch = to_batch(ImageBatch, prepared, preprocessing.divisor if preprocessing else 1)
        batch = to_device(batch, next(model.parameters()).device)
        _trace(record, model, batch, sizes, names, postprocessing, every_layer, warm)
    return record.stages


def trace(model: Network, batch: ImageBatch, image_sizes: Sequence[ImageSize] | None = None,
          names: Sequence[str] | None = None, *, postprocessing: Postprocessing = PUBLISHED,
          every_layer: bool = False, stop: Stop = nowhere, keep: bool = False, warm: bool = False) -> list[Stage]:
    """Run the model in its current mode; the stages from the batch to the detections.

    Inside the encoder and the decoder, stages of the first layer are recorded, with `every_layer` those of all.
    Detections are in pixels of `image_sizes`, (height, width), by default those of the batch; `names` are the
    classes'. Predictions that are not finite make no detections. `stop` is asked once for each stage: where it answers
    True, `breakpoint()` opens a debugger in the line that made the stage, with the local variable `tensor`. `keep`
    keeps each stage's tensor; `warm` runs the model once before, so that times are not those of a first run. Raises
    ValueError if sizes or names do not fit.
    """
    with Recorder(stop, keep=keep) as record:
        record.before_trace(ImageBatch.from_images, "return", lambda: _record_batch(record, batch))
        _trace(record, model, batch, image_sizes, names, postprocessing, every_layer, warm)
    return record.stages


@torch.inference_mode()
def _trace(record: Recorder, model: Network, batch: ImageBatch, image_sizes: Sequence[ImageSize] | None,
           names: Sequence[str] | None, postprocessing: Postprocessing, every_layer: bool, warm: bool) -> None:
    if warm:
        model(batch)
    _watch_backbone(record, model.backbone)
    _watch_pyramid(record, model.pyramid)
    _watch_encoder(record, model.encoder, every_layer)
    _watch_queries(record, model.queries)
    _watch_decoder(record, model.decoder, every_layer)
    record.start_clock()
    predictions: Predictions = model(batch)
    if predictions.are_finite():
        best = record.function(best_detections, {"return": lambda found: (
            _record_detections(record, found, postprocessing.threshold))})
        find = record.function(Predictions.detections, {}, {"best_detections": best})
        find(predictions, batch.sizes if image_sizes is None else image_sizes, names=names,
             nms_threshold=postprocessing.nms_threshold)


def _record_batch(record: Recorder, batch: ImageBatch) -> None:
    record.add(batch, "images", "B 3 H W", batch.images)
    record.add(batch, "padding", "B H W", batch.padding, _padded_share(batch.padding))


def _watch_backbone(record: Recorder, backbone: Backbone) -> None:
    def report(maps: Sequence[Tensor]) -> None:
        for number, values in enumerate(maps, start=6 - len(maps)):   # the last is C5
            record.add(backbone, f"C{number}", "B channels H W", values)

    record.watch(backbone, {"maps#2" if backbone.channels_last else "maps#1": report})


def _watch_pyramid(record: Recorder, builder: PyramidBuilder | SingleMap) -> None:
    def report_shapes(shapes: LevelShapes) -> None:
        starts = starts_of(shapes)
        record.add(builder, "level shapes", "L 2", torch.tensor(shapes),
                   ", ".join(f"{height} x {width}" for height, width in shapes))
        record.add(builder, "level starts", "L", torch.tensor(starts), ", ".join(map(str, starts)))

    def report_ratios(ratios: Float[Tensor, "B L 2"]) -> None:
        record.add(builder, "valid ratios", "B L 2", ratios,
                   *(f"image {image}, (width, height): {_listed(rows)}" for image, rows in enumerate(ratios)))

    encoding = "sine position" if isinstance(builder, SingleMap) else "sine position + level embedding"
    _watch_levels(record, builder, {
        "return.tokens": lambda tokens: record.add(builder, "tokens", "B N C", tokens),
        "return.position": lambda position: record.add(builder, "position", "B N C", position, encoding),
        "return.padding": lambda padding: record.add(builder, "padding", "B N", padding, _padded_share(padding)),
        "return.level_shapes": report_shapes,
        "return.valid_ratios": report_ratios})


def _watch_levels(record: Recorder, builder: PyramidBuilder | SingleMap, reports: dict[str, Callable[[Any], None]],
                  ) -> None:
    """The maps of all levels, and what `reports` ask for."""
    levels = count()

    def report(level: Float[Tensor, "B C H W"], how: str = "a 1 x 1 convolution") -> None:
        record.add(builder, f"level {next(levels)}", "B C H W", level, how)

    def report_all(projected: Sequence[Tensor]) -> None:
        for level in projected:
            report(level)

    def report_further(level: Float[Tensor, "B C H W"]) -> None:
        report(level, "a 3 x 3 convolution of stride 2: of the last map itself, or of a further level")

    if isinstance(builder, SingleMap):
        record.watch(builder, {"level": report, **reports})
    else:
        record.watch(builder, {"levels": report_all, "source#2": report_further}, "project")
        record.watch(builder, reports)


def _watch_encoder(record: Recorder, encoder: Encoder, every_layer: bool) -> None:
    numbers, positions = count(), count()

    def report_reference(reference: Float[Tensor, "B N L 2"]) -> None:
        record.add(encoder, "reference points", "B N L 2", reference, f"of the first token: {_listed(reference[0, 0])}")

    layers: Any = encoder.layers   # type checkers know the items of a ModuleList as Module only
    if not isinstance(encoder.positions, GivenPosition):
        record.watch(encoder.positions, {"return": lambda position: record.add(
            encoder.positions, "position", "B N C", position, part=f"encoder layer {next(positions)}")})
    for index, layer in enumerate(layers):
        if index == 0 or every_layer:
            _watch_attention(record, layer.attention, f"encoder layer {index}", "N")
            _watch_feed_forward(record, layer.feed_forward, f"encoder layer {index}", "N")
    record.watch(encoder, {
        "reference": report_reference,
        "pyramid": lambda pyramid: record.add(encoder, f"layer {next(numbers)} tokens", "B N C", pyramid.tokens),
        "return": lambda memory: record.add(encoder, "memory", "B N C", memory.tokens)})


def _watch_attention(record: Recorder, attention: nn.Module, part: str, queries: str) -> None:
    names = {}
    if isinstance(attention, DeformableAttention):
        names["fused_ms_deform_attn"] = _watch_sampling(record, attention, part, queries)
    record.watch(attention, {"return": lambda output: record.add(
        attention, "output", f"B {queries} C", output, part=part)}, names=names)


def _watch_sampling(record: Recorder, attention: DeformableAttention, part: str, queries: str) -> Callable[..., Tensor]:
    """The op, as it has to be called to be recorded."""
    def report_weights(logits: Float[Tensor, "B Q M LP"]) -> None:
        weights = attention_weights(logits, attention.num_levels)
        record.add(attention, "attention weights", f"B {queries} M L P", weights,
                   "computed here a second time: the op takes the logits, and its kernels never write the weights down",
                   part=part)

    record.watch(attention, {"return": lambda value: record.add(
        attention, "value", "B N M D", value, part=part)}, "values")
    record.watch(attention, {
        "return.0": lambda offsets: record.add(
            attention, "sampling offsets", f"B {queries} M L P 2",
            offsets.unflatten(-1, (attention.num_levels, attention.num_points, 2)), part=part),
        "return.1": report_weights}, "sampling")
    return record.function(fused_ms_deform_attn, {"return": lambda samples: record.add(
        fused_ms_deform_attn, "samples", f"B {queries} C", samples,
        "weighted sums of the samples, the heads side by side", part=part)})


def _watch_feed_forward(record: Recorder, network: FeedForward, part: str, queries: str) -> None:
    record.watch(network, {"hidden": lambda hidden: record.add(
        network, "hidden", f"B {queries} channels", hidden, "after the activation", part=part)})


def _watch_queries(record: Recorder, queries: nn.Module) -> None:
    reports = _QueryReports(record, queries)
    if isinstance(queries, ProposalQueries):
        record.watch(queries, {
            "logits": lambda logits: record.add(queries, "proposal logits", "B N K", logits),
            "return.1": lambda boxes: record.add(queries, "proposal boxes", "B N 4", boxes)}, "propose")
        record.watch(queries, {"reference#1": reports.reference, "embedded": reports.embedded})
    elif isinstance(queries, LearnedQueries):
        record.watch(queries, {"position": reports.position, "content": reports.content,
                               "return": lambda made: reports.reference(made.reference)})
    elif isinstance(queries, SlotQueries):
        record.watch(queries, {"position": reports.position, "return": lambda made: reports.content(made.content)})
    else:
        record.watch(queries, {"return": reports.queries})


class _QueryReports:
    """What is recorded of queries, whatever they are made of."""

    def __init__(self, record: Recorder, source: nn.Module) -> None:
        self.record, self.source = record, source

    def content(self, content: Float[Tensor, "B Q C"]) -> None:
        self.record.add(self.source, "content", "B Q C", content)

    def reference(self, reference: Float[Tensor, "B Q R"]) -> None:
        if reference.numel():   # DETR's queries have none
            self.record.add(self.source, "reference", f"B Q {reference.shape[-1]}", reference)

    def position(self, position: Float[Tensor, "B Q C"]) -> None:
        self.embeddings(position.shape[-1])
        self.record.add(self.source, "position", "B Q C", position)

    def queries(self, made: Queries) -> None:
        self.embeddings(made.content.shape[-1])
        self.content(made.content)
        self.reference(made.reference)

    def embedded(self, embedded: Embedded) -> None:
        if embedded.position is None:
            self.embeddings(embedded.content.shape[-1])
        else:
            self.position(embedded.position)
        self.content(embedded.content)

    def embeddings(self, width: int) -> None:
        """The tables of what queries have learned."""
        for name, embedding in self.source.named_modules():
            if isinstance(embedding, nn.Embedding):
                in_halves = embedding.embedding_dim == 2 * width
                notes = ["the first half is the position, the second the content"] if in_halves else []
                self.record.add(self.source, f"query {name}", "Q 2C" if in_halves else "Q C", embedding.weight, *notes)


def _watch_decoder(record: Recorder, decoder: Decoder, every_layer: bool) -> None:
    numbers = count()
    layers: Any = decoder.layers

    def report_place(place: Place) -> None:
        number = next(numbers)
        if place.reference.numel():
            record.add(layers[number], "reference", f"B Q L {place.reference.shape[-1]}", place.reference,
                       part=f"decoder layer {number}")

    def report_predictions(predictions: Predictions) -> None:
        record.add(decoder, "logits", "layers B Q K", predictions.logits)
        record.add(decoder, "boxes", "layers B Q 4", predictions.boxes)

    _watch_places(record, decoder.places)
    for index, layer in enumerate(layers):
        _watch_decoder_layer(record, layer, f"decoder layer {index}", every_layer or index == 0)
    _watch_heads(record, decoder)
    record.watch(decoder, {"place": report_place, "return": report_predictions})


def _watch_places(record: Recorder, places: nn.Module) -> None:
    """The positions that are made anew in each layer."""
    layers = count()

    def report(place: Place) -> None:
        part = f"decoder layer {next(layers)}"
        record.add(places, "position", "B Q C", place.position, "made from the boxes", part=part)
        if place.sine is not None:
            record.add(places, "sine", "B Q C", place.sine, "compared with the positions of the memory", part=part)

    if not isinstance(places, GivenPlace):
        record.watch(places, {"return": report})


def _watch_decoder_layer(record: Recorder, layer: DecoderLayer, part: str, look_inside: bool) -> None:
    reports: dict[str, Callable[[Any], None]] = {
        "return": lambda hidden: record.add(layer, "hidden", "B Q C", hidden, part=part)}
    if look_inside:
        reports["attended#1"] = lambda attended: record.add(layer, "self-attention", "B Q C", attended, part=part)
        _watch_attention(record, layer.cross_attention, part, "Q")
        _watch_feed_forward(record, layer.feed_forward, part, "Q")
    record.watch(layer, reports)


def _watch_heads(record: Recorder, decoder: Decoder) -> None:
    layers, parts = count(), []   # each layer calls its head once, also a shared one

    for head in {decoder.heads.of_layer(index) for index in range(len(decoder.layers))}:
        def report_logits(logits: Float[Tensor, "B Q K"], head: nn.Module = head) -> None:
            parts.append(f"decoder layer {next(layers)}")
            record.add(head, "logits", "B Q K", logits, part=parts[-1])

        def report_boxes(boxes: Float[Tensor, "B Q 4"], head: nn.Module = head) -> None:
            record.add(head, "boxes", "B Q 4", boxes, part=parts[-1])

        record.watch(head, {"return.0": report_logits, "return.1": report_boxes})


def _record_detections(record: Recorder, found: Sequence[Detections], threshold: float) -> None:
    for image, detections in enumerate(found):
        height, width = detections.image_size
        record.add(detections, f"image {image} boxes", "T 4", detections.boxes, f"in pixels of {height} x {width}")
        num_above = len(detections.above(threshold))
        record.add(detections, f"image {image} scores", "T", detections.scores,
                   f"{len(detections)} detections, {num_above} with a score of at least {threshold}; "
                   f"the best: {detections.names[0]!r}, {detections.scores[0]:.4f}")


def _padded_share(padding: Bool[Tensor, "B *size"]) -> str:
    return f"{padding.float().mean():.1%} padded"


def _listed(rows: Float[Tensor, "L R"]) -> str:
    return " ".join(f"({', '.join(f'{value:.4f}' for value in row)})" for row in rows.tolist())
