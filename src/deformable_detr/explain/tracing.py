"""From images to detections: each stage with its tensor's shape and range, in the order the data goes.

The functions below follow the model's forward, part by part. Nothing is computed anew that a hook can see.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from deformable_detr.detections import Detections
from deformable_detr.explain.recorder import Recorder, Stage
from deformable_detr.images import read_image
from deformable_detr.model.attention import DeformableAttention
from deformable_detr.model.backbone import Backbone
from deformable_detr.model.decoder import Decoder, DecoderLayer
from deformable_detr.model.encoder import Encoder
from deformable_detr.model.feedforward import FeedForward
from deformable_detr.model.heads import LayerAnswer, RefiningHeads, SharedHead
from deformable_detr.model.pyramid import PyramidBuilder
from deformable_detr.model.queries import LearnedQueries, ProposalQueries
from deformable_detr.ops import fused_ms_deform_attn
from deformable_detr.ops.reference import attention_weights
from deformable_detr.papers import DeformableDETR
from deformable_detr.preprocessing import Preprocessing, prepare_image
from deformable_detr.structures import Features, ImageBatch, ImageSize, Predictions, Pyramid, Queries, to_device

SURE = 0.5   # the score from which `ddetr detect` shows a detection


def trace_images(model: DeformableDETR, images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
                 preprocessing: Preprocessing | None = None, names: Sequence[str] | None = None, *,
                 every_layer: bool = False) -> list[Stage]:
    """`trace` for decoded images as one batch; without `preprocessing` they are normalised, but not resized.

    Detections lie in the images as they came. Raises ValueError where there is no image.
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
    return record.stages + trace(model, batch, sizes, names, every_layer=every_layer)


@torch.inference_mode()
def trace(model: DeformableDETR, batch: ImageBatch, image_sizes: Sequence[ImageSize] | None = None,
          names: Sequence[str] | None = None, *, every_layer: bool = False) -> list[Stage]:
    """Run the model, in the mode it is in, and tell every stage from the batch to the detections.

    The first layer of the encoder and of the decoder is looked into, with `every_layer` all are. Detections
    lie in images of `image_sizes`, (height, width), by default those of the batch; `names` are those of the
    classes. Raises ValueError where either does not fit.
    """
    with Recorder() as record:
        _record_batch(record, batch)
        _watch_backbone(record, model.backbone)
        _watch_pyramid(record, model.pyramid)
        _watch_encoder(record, model.encoder, every_layer)
        _watch_queries(record, model.queries)
        _watch_decoder(record, model.decoder, every_layer)
        predictions: Predictions = model(batch)
    found = predictions.detections(batch.sizes if image_sizes is None else image_sizes, names=names,
                                   nms_threshold=model.config.nms_threshold)
    for image, detections in enumerate(found):
        _record_detections(record, image, detections)
    return record.stages


def _record_batch(record: Recorder, batch: ImageBatch) -> None:
    record.add(batch, "images", "B 3 H W", batch.images)
    record.add(batch, "padding", "B H W", batch.padding, _padded_share(batch.padding))


def _watch_backbone(record: Recorder, backbone: Backbone) -> None:
    def tell(features: Features) -> None:
        for number, values in enumerate(features.maps, start=6 - len(features.maps)):   # the last is C5
            record.add(backbone, f"C{number}", "B channels H W", values)

    record.after(backbone, tell)


def _watch_pyramid(record: Recorder, builder: PyramidBuilder) -> None:
    def tell(pyramid: Pyramid) -> None:
        shapes = ", ".join(f"{height} x {width}" for height, width in pyramid.level_shapes)
        ratios = [f"image {image}, (width, height): {_listed(rows)}"
                  for image, rows in enumerate(pyramid.valid_ratios)]
        record.add(builder, "tokens", "B N C", pyramid.tokens)
        record.add(builder, "position", "B N C", pyramid.position, "sine position + level embedding")
        record.add(builder, "padding", "B N", pyramid.padding, _padded_share(pyramid.padding))
        record.add(builder, "level shapes", "L 2", torch.tensor(pyramid.level_shapes), shapes)
        record.add(builder, "level starts", "L", torch.tensor(pyramid.level_starts),
                   ", ".join(map(str, pyramid.level_starts)))
        record.add(builder, "valid ratios", "B L 2", pyramid.valid_ratios, *ratios)

    for level, projection in enumerate(builder.projections):
        record.output(projection, builder, f"level {level}", "B C H W")
    record.after(builder, tell)


def _watch_encoder(record: Recorder, encoder: Encoder, every_layer: bool) -> None:
    def tell_reference(inputs: dict[str, Any]) -> None:
        reference = inputs["reference"]
        record.add(encoder, "reference points", "B N L 2", reference, f"the very first: {_listed(reference[0, 0])}")

    layers: Any = encoder.layers   # of a ModuleList, type checkers know no more than Module
    record.before(layers[0], tell_reference)
    for index, layer in enumerate(layers):
        if index == 0 or every_layer:
            _watch_attention(record, layer.attention, f"encoder layer {index}", "N")
            _watch_feed_forward(record, layer.feed_forward, f"encoder layer {index}", "N")
        record.output(layer, encoder, f"layer {index} tokens", "B N C")
    record.output(encoder, encoder, "memory", "B N C")


def _watch_attention(record: Recorder, attention: DeformableAttention, part: str, queries: str) -> None:
    heads, levels, points = attention.num_heads, attention.num_levels, attention.num_points

    def tell_weights(logits: Tensor) -> None:
        # The softmax is no module for a hook to hang on.
        weights = attention_weights(logits.unflatten(-1, (heads, -1)), levels)
        record.add(attention, "attention weights", f"B {queries} M L P", weights, part=part)

    def tell_samples(inputs: dict[str, Any]) -> None:
        record.add(fused_ms_deform_attn, "samples", f"B {queries} C", inputs["input"],
                   "weighted sums of the samples, the heads side by side", part=part)

    record.output(attention.value_projection, attention, "value", "B N M D",
                  "before the padding becomes zeros", part=part, last=(heads, -1))
    record.output(attention.sampling_offsets, attention, "sampling offsets", f"B {queries} M L P 2",
                  part=part, last=(heads, levels, points, 2))
    record.after(attention.attention_weights, tell_weights)
    record.before(attention.output_projection, tell_samples)
    record.output(attention, attention, "output", f"B {queries} C", part=part)


def _watch_feed_forward(record: Recorder, network: FeedForward, part: str, queries: str) -> None:
    record.output(network.expand, network, "hidden", f"B {queries} channels", "before ReLU", part=part)


def _watch_queries(record: Recorder, queries: LearnedQueries | ProposalQueries) -> None:
    def tell(made: Queries) -> None:
        if isinstance(queries, LearnedQueries):
            record.add(queries, "query embedding", "Q 2C", queries.embedding.weight,
                       "the first half is the position, the second the content")
        if made.proposals is not None:
            record.add(queries, "proposal logits", "B N K", made.proposals.logits, "class 0 alone is the score")
            record.add(queries, "proposal boxes", "B N 4", made.proposals.boxes)
        record.add(queries, "position", "B Q C", made.position)
        record.add(queries, "content", "B Q C", made.content)
        record.add(queries, "reference", f"B Q {made.reference.shape[-1]}", made.reference)

    record.after(queries, tell)


def _watch_decoder(record: Recorder, decoder: Decoder, every_layer: bool) -> None:
    def tell_predictions(predictions: Predictions) -> None:
        record.add(decoder, "logits", "layers B Q K", predictions.logits)
        record.add(decoder, "boxes", "layers B Q 4", predictions.boxes)

    layers: Any = decoder.layers
    for index, layer in enumerate(layers):
        _watch_decoder_layer(record, layer, f"decoder layer {index}", every_layer or index == 0)
    _watch_heads(record, decoder.heads)
    record.after(decoder, tell_predictions)


def _watch_decoder_layer(record: Recorder, layer: DecoderLayer, part: str, look_inside: bool) -> None:
    def tell_reference(inputs: dict[str, Any]) -> None:
        reference = inputs["reference"]
        record.add(layer, "reference", f"B Q L {reference.shape[-1]}", reference, part=part)

    record.before(layer, tell_reference)
    if look_inside:
        record.after(layer.self_attention,
                     lambda output: record.add(layer, "self-attention", "B Q C", output[0], part=part))
        _watch_attention(record, layer.cross_attention, part, "Q")
        _watch_feed_forward(record, layer.feed_forward, part, "Q")
    record.output(layer, layer, "hidden", "B Q C", part=part)


def _watch_heads(record: Recorder, heads: SharedHead | RefiningHeads) -> None:
    layers = count()   # the decoder calls its heads behind each layer

    def tell(answer: LayerAnswer) -> None:
        part = f"decoder layer {next(layers)}"
        record.add(heads, "logits", "B Q K", answer.logits, part=part)
        record.add(heads, "boxes", "B Q 4", answer.boxes, part=part)

    record.after(heads, tell)


def _record_detections(record: Recorder, image: int, detections: Detections) -> None:
    height, width = detections.image_size
    record.add(detections, f"image {image} boxes", "T 4", detections.boxes, f"in pixels of {height} x {width}")
    record.add(detections, f"image {image} scores", "T", detections.scores,
               f"{len(detections)} detections, {len(detections.above(SURE))} with a score of at least {SURE}; "
               f"the best: {detections.names[0]!r}, {detections.scores[0]:.4f}")


def _padded_share(padding: Bool[Tensor, "B *size"]) -> str:
    return f"{padding.float().mean():.1%} padded"


def _listed(rows: Float[Tensor, "L R"]) -> str:
    return " ".join(f"({', '.join(f'{value:.4f}' for value in row)})" for row in rows.tolist())
