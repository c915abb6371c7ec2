"""The names in the authors' own checkpoints, for each paper of the family. No value is touched."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from deformable_detr.papers.config import Config
from deformable_detr.weights.dialects.rules import Rule, to_ours, to_theirs

Value = TypeVar("Value")

PUBLISHED_DECODER_LAYERS = 6


def from_official(state_dict: Mapping[str, Value], config: Config | None = None) -> dict[str, Value]:
    """The published code's state dict under our names; without `config` the keys tell which paper's it is.

    Each head that the published code names several times comes once. Raises ValueError that lists every key that
    belongs to no published detector, and the parts that are missing altogether.
    """
    renamed = to_ours(state_dict, published_rules(described_by_config(config) or described_by_theirs(state_dict)))
    parts = ("backbone.", "pyramid.", "encoder.", "queries.", "decoder.layers.", "decoder.heads.")
    missing = [part.rstrip(".") for part in parts if not any(key.startswith(part) for key in renamed)]
    if missing:
        raise ValueError(f"state dict: nothing for {', '.join(missing)}")
    return renamed


def to_official(state_dict: Mapping[str, Value], config: Config | None = None) -> dict[str, Value]:
    """Anything keyed like our state dict (a subset, gradients, ...) under the published names.

    A head gets all of its published names. Without `config` the keys tell which paper's they are. Raises ValueError
    for a key that is none of ours, or of a part that the published code lacks.
    """
    described = described_by_config(config) or described_by_ours(state_dict)
    mixed = "queries.embedding.content.weight"
    if described.paper == "deformable-detr" and mixed in state_dict:
        raise ValueError(f"state dict: {mixed}: the published code has no mixed_queries")
    return to_theirs(state_dict, published_rules(described), described.num_layers)


@dataclass(frozen=True)
class Described:
    """What decides on the names."""

    paper: str
    num_layers: int = PUBLISHED_DECODER_LAYERS     # of the decoder
    refine: bool = False
    two_stage: bool = False


def described_by_config(config: Config | None) -> Described | None:
    if config is None:
        return None
    return Described(config.paper, config.num_decoder_layers, getattr(config, "refine", False),
                     getattr(config, "two_stage", False))


def described_by_theirs(keys: Iterable[str]) -> Described:
    """What the published keys tell."""
    present = set(keys)
    layers = _count(present, r"transformer\.decoder\.layers\.(\d+)\.")
    sampling = any(".sampling_offsets." in key for key in present)
    if "label_enc.weight" in present:
        return Described("dino", layers)
    if "refpoint_embed.weight" in present:
        return Described("dab-deformable-detr" if sampling else "dab-detr", layers)
    if any(".multihead_attn." in key for key in present):
        return Described("detr", layers)
    return Described("deformable-detr", layers,
                     refine=any(key.startswith("transformer.decoder.bbox_embed.") for key in present),
                     two_stage=any(key.startswith("transformer.enc_output.") for key in present))


def described_by_ours(keys: Iterable[str]) -> Described:
    """What our keys, or some of them, tell: Deformable DETR where nothing speaks for another paper."""
    present = set(keys)
    layers = _count(present, r"decoder\.(?:heads\.)?layers\.(\d+)\.") or PUBLISHED_DECODER_LAYERS

    def has(part: str) -> bool:
        return any(part in key for key in present)

    if has("queries.embedding.labels."):
        return Described("dino", layers)
    if has("queries.anchors."):
        return Described("dab-deformable-detr" if has("queries.contents.") else "dab-detr", layers)
    if has("cross_attention.in_proj"):
        return Described("detr", layers)
    return Described("deformable-detr", layers, refine=has("decoder.heads.layers."), two_stage=has("queries.head."))


def _count(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that `pattern` finds at the start of the keys; 0 when it finds none."""
    found = [int(match[1]) for match in (re.match(pattern, key) for key in keys) if match]
    return max(found, default=-1) + 1


def published_rules(described: Described) -> list[Rule]:
    """The names of one published code base beside ours."""
    of_paper = {"detr": _detr, "dab-detr": _dab_detr, "dab-deformable-detr": _dab_deformable_detr, "dino": _dino,
                "deformable-detr": _deformable_detr}
    return [("backbone.0.body.", "backbone.net."), *of_paper[described.paper](described)]


def _deformable_detr(described: Described) -> list[Rule]:
    rules = [*DEFORMABLE, ("query_embed.", "queries.embedding."),
             ("transformer.reference_points.", "queries.reference.")]
    copies = ["", "transformer.decoder."]
    if described.two_stage:
        last = described.num_layers
        rules = [*DEFORMABLE, *PROPOSALS,
                 ("transformer.pos_trans.", "queries.embedding.projection."),
                 ("transformer.pos_trans_norm.", "queries.embedding.norm.")]
        for copy in copies:
            rules += _head(f"{copy}class_embed.{last}.", f"{copy}bbox_embed.{last}.", "queries.head.")
    if not described.refine:
        return rules + _head("class_embed.*.", "bbox_embed.*.", "decoder.heads.shared.")
    rules += _head("class_embed.#.", "bbox_embed.#.", "decoder.heads.layers.#.")
    rules += _mlp("transformer.decoder.bbox_embed.#.", "decoder.heads.layers.#.locate.", 3)
    if described.two_stage:
        rules.append(("transformer.decoder.class_embed.#.", "decoder.heads.layers.#.classify."))
    return rules


def _dab_deformable_detr(_: Described) -> list[Rule]:
    return [*DEFORMABLE, ("tgt_embed.", "queries.contents."), ("refpoint_embed.", "queries.anchors."),
            *_mlp("transformer.decoder.ref_point_head.", "decoder.places.position.", 2),
            *_mlp("transformer.decoder.query_scale.", "decoder.places.scale.", 2),
            *_head("class_embed.#.", "bbox_embed.#.", "decoder.heads.layers.#."),
            *_mlp("transformer.decoder.bbox_embed.#.", "decoder.heads.layers.#.locate.", 3)]


def _dino(_: Described) -> list[Rule]:
    return [*DEFORMABLE, *PROPOSALS, ("transformer.decoder.norm.", "decoder.norm."),
            ("transformer.tgt_embed.", "queries.embedding.content."), ("label_enc.", "queries.embedding.labels."),
            *_head("transformer.enc_out_class_embed.", "transformer.enc_out_bbox_embed.", "queries.head."),
            *_mlp("transformer.decoder.ref_point_head.", "decoder.places.position.", 2),
            *_head("class_embed.*.", "bbox_embed.*.", "decoder.heads.shared."),
            *_head("transformer.decoder.class_embed.*.", "transformer.decoder.bbox_embed.*.", "decoder.heads.shared.")]


def _detr(_: Described) -> list[Rule]:
    return [*DENSE, ("query_embed.", "queries.embedding."),
            ("transformer.decoder.layers.#.self_attn.", "decoder.layers.#.self_attention."),
            ("transformer.decoder.layers.#.multihead_attn.", "decoder.layers.#.cross_attention."),
            *_head("class_embed.", "bbox_embed.", "decoder.heads.shared.")]


def _dab_detr(_: Described) -> list[Rule]:
    theirs, ours = "transformer.decoder.layers.#.", "decoder.layers.#."
    self_attention = {"qcontent": "query_content", "qpos": "query_position", "kcontent": "key_content",
                      "kpos": "key_position", "v": "value"}
    cross_attention = {**self_attention, "qpos_sine": "query_sine"}
    return [*DENSE, ("refpoint_embed.", "queries.anchors."),
            ("transformer.encoder.layers.#.activation.", "encoder.layers.#.feed_forward.activation."),
            ("transformer.decoder.layers.#.activation.", "decoder.layers.#.feed_forward.activation."),
            *((f"{theirs}sa_{name}_proj.", f"{ours}self_attention.{own}.") for name, own in self_attention.items()),
            *((f"{theirs}ca_{name}_proj.", f"{ours}cross_attention.{own}.") for name, own in cross_attention.items()),
            (f"{theirs}self_attn.out_proj.", f"{ours}self_attention.output."),
            (f"{theirs}cross_attn.out_proj.", f"{ours}cross_attention.output."),
            *_mlp("transformer.encoder.query_scale.", "encoder.positions.scale.", 2),
            *_mlp("transformer.decoder.query_scale.", "decoder.places.scale.", 2),
            *_mlp("transformer.decoder.ref_point_head.", "decoder.places.position.", 2),
            *_mlp("transformer.decoder.ref_anchor_head.", "decoder.places.expected_size.", 2),
            *_head("class_embed.", "bbox_embed.", "decoder.heads.shared."),
            *_mlp("transformer.decoder.bbox_embed.", "decoder.heads.shared.locate.", 3)]


def _mlp(theirs: str, ours: str, num_layers: int) -> list[Rule]:
    """Linear layers that are numbered among themselves there; here the ReLUs between them count too."""
    return [(f"{theirs}layers.{index}.", f"{ours}{2 * index}.") for index in range(num_layers)]


def _head(classes: str, boxes: str, ours: str) -> list[Rule]:
    return [(classes, f"{ours}classify."), *_mlp(boxes, f"{ours}locate.", 3)]


def _feed_forward(part: str, norm: str) -> list[Rule]:
    theirs, ours = f"transformer.{part}.layers.#.", f"{part}.layers.#.feed_forward."
    return [(f"{theirs}linear1.", f"{ours}expand."), (f"{theirs}linear2.", f"{ours}contract."),
            (f"{theirs}{norm}.", f"{ours}norm.")]


def _sampling(theirs: str, ours: str) -> list[Rule]:
    return [(f"{theirs}sampling_offsets.", f"{ours}sampling_offsets."),
            (f"{theirs}attention_weights.", f"{ours}attention_weights."),
            (f"{theirs}value_proj.", f"{ours}value_projection."),
            (f"{theirs}output_proj.", f"{ours}output_projection.")]


ENCODER = [("transformer.encoder.layers.#.norm1.", "encoder.layers.#.attention_norm."),
           *_feed_forward("encoder", "norm2"), *_feed_forward("decoder", "norm3")]
DEFORMABLE = [*ENCODER, ("input_proj.#.", "pyramid.projections.#."),
              ("transformer.level_embed", "pyramid.level_embedding"),
              *_sampling("transformer.encoder.layers.#.self_attn.", "encoder.layers.#.attention."),
              *_sampling("transformer.decoder.layers.#.cross_attn.", "decoder.layers.#.cross_attention."),
              ("transformer.decoder.layers.#.norm1.", "decoder.layers.#.cross_attention_norm."),
              ("transformer.decoder.layers.#.self_attn.", "decoder.layers.#.self_attention."),
              ("transformer.decoder.layers.#.norm2.", "decoder.layers.#.self_attention_norm.")]
PROPOSALS = [("transformer.enc_output.", "queries.memory_projection."),
             ("transformer.enc_output_norm.", "queries.memory_norm.")]
DENSE = [*ENCODER, ("input_proj.", "pyramid.projection."), ("transformer.decoder.norm.", "decoder.norm."),
         ("transformer.encoder.layers.#.self_attn.", "encoder.layers.#.attention."),
         ("transformer.decoder.layers.#.norm1.", "decoder.layers.#.self_attention_norm."),
         ("transformer.decoder.layers.#.norm2.", "decoder.layers.#.cross_attention_norm.")]
