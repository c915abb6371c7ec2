"""From images to detections: each stage with its tensor's shape and range, in the order of computation.

The functions below follow the model's forward, part by part. Only what no hook can see is computed a second time.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from deformable_detr.detections import PUBLISHED, Detections, Postprocessing
from deformable_detr.explain.recorder import Recorder, Stage
from deformable_detr.images import read_image
from deformable_detr.model.attention import DeformableAttention
from deformable_detr.model.backbone import Backbone
from deformable_detr.model.decoder import Decoder, DecoderLayer
from deformable_detr.model.encoder import Encoder
from deformable_detr.model.feedforward import FeedForward
from deformable_detr.model.network import Network
from deformable_detr.model.places import GivenPlace
from deformable_detr.model.pyramid import PyramidBuilder, SingleMap
from deformable_detr.ops import fused_ms_deform_attn
from deformable_detr.ops.reference import attention_weights
from deformable_detr.preprocessing import Preprocessing, prepare_image
from deformable_detr.structures import (
    Features,
    ImageBatch,
    ImageSize,
    Place,
    Predictions,
    Pyramid,
    Queries,
    to_device,
)


def trace_images(model: Network, images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
                 preprocessing: Preprocessing | None = None, names: Sequence[str] | None = None, *,
                 postprocessing: Postprocessing = PUBLISHED, every_layer: bool = False) -> list[Stage]:
    """`trace` for decoded images as one batch; without `preprocessing` they are normalised, but not resized.

    Detections are in pixels of the images as given. Raises ValueError for no images.
    """
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    rules = [preprocessing or Preprocessing(size=min(size), max_size=max(size)) for size in sizes]
    prepared = [prepare_image(image, rule) for image, rule in zip(images, rules, strict=True)]
    batch = ImageBatch.from_images(prepared, preprocessing.divisor if preprocessing else 1)
    record = Recorder()
    for index, image in enumerate(images):
        record.add(read_image, f"image {index}", "H W 3", image)
    for index, tensor in enumerate(prepared):
        record.add(prepare_image, f"image {index}", "3 H W", tensor)
    batch = to_device(batch, next(model.parameters()).device)
    return record.stages + trace(model, batch, sizes, names, postprocessing=postprocessing, every_layer=every_layer)


@torch.inference_mode()
def trace(model: Network, batch: ImageBatch, image_sizes: Sequence[ImageSize] | None = None,
          names: Sequence[str] | None = None, *, postprocessing: Postprocessing = PUBLISHED,
          every_layer: bool = False) -> list[Stage]:
    """Run the model in its current mode; the stages from the batch to the detections.

    Inside the encoder and the decoder, stages of the first layer are recorded, with `every_layer` those of all.
    Detections are in pixels of `image_sizes`, (height, width), by default those of the batch; `names` are the
    classes'. Predictions that are not finite make no detections. Raises ValueError if sizes or names do not fit.
    """
    with Recorder() as record:
        _record_batch(record, batch)
        _watch_backbone(record, model.backbone)
        _watch_pyramid(record, model.pyramid)
        _watch_encoder(record, model.encoder, every_layer)
        _watch_queries(record, model.queries)
        _watch_decoder(record, model.decoder, every_layer)
        predictions: Predictions = model(batch)
    if predictions.are_finite():
        found = predictions.detections(batch.sizes if image_sizes is None else image_sizes, names=names,
                                       nms_threshold=postprocessing.nms_threshold)
        for image, detections in enumerate(found):
            _record_detections(record, image, detections, postprocessing.threshold)
    return record.stages


def _record_batch(record: Recorder, batch: ImageBatch) -> None:
    record.add(batch, "images", "B 3 H W", batch.images)
    record.add(batch, "padding", "B H W", batch.padding, _padded_share(batch.padding))


def _watch_backbone(record: Recorder, backbone: Backbone) -> None:
    def report(features: Features) -> None:
        for number, values in enumerate(features.maps, start=6 - len(features.maps)):   # the last is C5
            record.add(backbone, f"C{number}", "B channels H W", values)

    record.after(backbone, report)


def _watch_pyramid(record: Recorder, builder: PyramidBuilder | SingleMap) -> None:
    def report(pyramid: Pyramid) -> None:
        shapes = ", ".join(f"{height} x {width}" for height, width in pyramid.level_shapes)
        ratios = [f"image {image}, (width, height): {_listed(rows)}"
                  for image, rows in enumerate(pyramid.valid_ratios)]
        record.add(builder, "tokens", "B N C", pyramid.tokens)
        record.add(builder, "position", "B N C", pyramid.position,
                   "sine position" if isinstance(builder, SingleMap) else "sine position + level embedding")
        record.add(builder, "padding", "B N", pyramid.padding, _padded_share(pyramid.padding))
        record.add(builder, "level shapes", "L 2", torch.tensor(pyramid.level_shapes), shapes)
        record.add(builder, "level starts", "L", torch.tensor(pyramid.level_starts),
                   ", ".join(map(str, pyramid.level_starts)))
        record.add(builder, "valid ratios", "B L 2", pyramid.valid_ratios, *ratios)

    for level, projection in enumerate(builder.projections):
        record.output(projection, builder, f"level {level}", "B C H W")
    record.after(builder, report)


def _watch_encoder(record: Recorder, encoder: Encoder, every_layer: bool) -> None:
    def report_reference(inputs: dict[str, Any]) -> None:
        reference = inputs["place"].reference
        record.add(encoder, "reference points", "B N L 2", reference, f"of the first token: {_listed(reference[0, 0])}")

    layers: Any = encoder.layers   # type checkers know the items of a ModuleList as Module only
    record.before(layers[0], report_reference)
    for index, layer in enumerate(layers):
        if index == 0 or every_layer:
            _watch_attention(record, layer.attention, f"encoder layer {index}", "N")
            _watch_feed_forward(record, layer.feed_forward, f"encoder layer {index}", "N")
        record.output(layer, encoder, f"layer {index} tokens", "B N C")
    record.after(encoder, lambda memory: record.add(encoder, "memory", "B N C", memory.tokens))


def _watch_attention(record: Recorder, attention: nn.Module, part: str, queries: str) -> None:
    if isinstance(attention, DeformableAttention):
        _watch_sampling(record, attention, part, queries)
    record.output(attention, attention, "output", f"B {queries} C", part=part)


def _watch_sampling(record: Recorder, attention: DeformableAttention, part: str, queries: str) -> None:
    heads, levels, points = attention.num_heads, attention.num_levels, attention.num_points

    def report_weights(logits: Tensor) -> None:
        # The softmax is computed inside the op, where no hook can see it.
        weights = attention_weights(logits.unflatten(-1, (heads, -1)), levels)
        record.add(attention, "attention weights", f"B {queries} M L P", weights, part=part)

    def report_samples(inputs: dict[str, Any]) -> None:
        record.add(fused_ms_deform_attn, "samples", f"B {queries} C", inputs["input"],
                   "weighted sums of the samples, the heads side by side", part=part)

    record.output(attention.value_projection, attention, "value", "B N M D",
                  "before the padding is masked", part=part, last=(heads, -1))
    record.output(attention.sampling_offsets, attention, "sampling offsets", f"B {queries} M L P 2",
                  part=part, last=(heads, levels, points, 2))
    record.after(attention.attention_weights, report_weights)
    record.before(attention.output_projection, report_samples)


def _watch_feed_forward(record: Recorder, network: FeedForward, part: str, queries: str) -> None:
    record.output(network.expand, network, "hidden", f"B {queries} channels", "before the activation", part=part)


def _watch_queries(record: Recorder, queries: nn.Module) -> None:
    def report(made: Queries) -> None:
        for name, embedding in queries.named_modules():
            if isinstance(embedding, nn.Embedding):
                in_halves = embedding.embedding_dim == 2 * made.content.shape[-1]
                notes = ["the first half is the position, the second the content"] if in_halves else []
                record.add(queries, f"query {name}", "Q 2C" if in_halves else "Q C", embedding.weight, *notes)
        if made.proposals is not None:
            record.add(queries, "proposal logits", "B N K", made.proposals.logits)
            record.add(queries, "proposal boxes", "B N 4", made.proposals.boxes)
        if made.position is not None:
            record.add(queries, "position", "B Q C", made.position)
        record.add(queries, "content", "B Q C", made.content)
        _add_reference(record, queries, made.reference, f"B Q {made.reference.shape[-1]}", "")

    record.after(queries, report)


def _add_reference(record: Recorder, source: nn.Module, reference: Tensor, axes: str, part: str) -> None:
    if reference.numel():   # DETR's queries have none
        record.add(source, "reference", axes, reference, part=part)


def _watch_decoder(record: Recorder, decoder: Decoder, every_layer: bool) -> None:
    def report_predictions(predictions: Predictions) -> None:
        record.add(decoder, "logits", "layers B Q K", predictions.logits)
        record.add(decoder, "boxes", "layers B Q 4", predictions.boxes)

    layers: Any = decoder.layers
    _watch_places(record, decoder.places)
    for index, layer in enumerate(layers):
        _watch_decoder_layer(record, layer, f"decoder layer {index}", every_layer or index == 0)
    _watch_heads(record, decoder)
    record.after(decoder, report_predictions)


def _watch_places(record: Recorder, places: nn.Module) -> None:
    """The positions that are made anew in each layer."""
    layers = count()

    def report(place: Place) -> None:
        part = f"decoder layer {next(layers)}"
        record.add(places, "position", "B Q C", place.position, "made from the boxes", part=part)
        if place.sine is not None:
            record.add(places, "sine", "B Q C", place.sine, "compared with the positions of the memory", part=part)

    if not isinstance(places, GivenPlace):
        record.after(places, report)


def _watch_decoder_layer(record: Recorder, layer: DecoderLayer, part: str, look_inside: bool) -> None:
    def report_reference(inputs: dict[str, Any]) -> None:
        reference = inputs["place"].reference
        _add_reference(record, layer, reference, f"B Q L {reference.shape[-1]}", part)

    record.before(layer, report_reference)
    if look_inside:
        record.output(layer.self_attention, layer, "self-attention", "B Q C", part=part)
        _watch_attention(record, layer.cross_attention, part, "Q")
        _watch_feed_forward(record, layer.feed_forward, part, "Q")
    record.output(layer, layer, "hidden", "B Q C", part=part)


def _watch_heads(record: Recorder, decoder: Decoder) -> None:
    layers = count()   # each layer calls its head once, also a shared one

    def report(answer: tuple[Tensor, Tensor]) -> None:
        part = f"decoder layer {next(layers)}"
        logits, boxes = answer
        record.add(decoder.heads, "logits", "B Q K", logits, part=part)
        record.add(decoder.heads, "boxes", "B Q 4", boxes, part=part)

    for head in {decoder.heads.of_layer(index) for index in range(len(decoder.layers))}:
        record.after(head, report)


def _record_detections(record: Recorder, image: int, detections: Detections, threshold: float) -> None:
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
