"""The names of MMDetection 2 and 3 beside the published ones: Deformable DETR.

Its convolutions before a group norm have no bias, and the decoder's norms are numbered in the order of use.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from deformable_detr.weights.dialects.rules import Rule

PAPERS = ("deformable-detr",)
FINEST_MAPS = 3     # taken from the backbone; further levels are "extra"
BUFFERS = (r"data_preprocessor\.(mean|std)", r"ema_.+")     # in a file, of no use
BATCH_NORM = re.compile(r"(backbone\..+\.)running_var")


def version_of(keys: Iterable[str]) -> int:
    """The release that has these keys: 2 or 3."""
    return 2 if any(key.startswith("bbox_head.transformer.") for key in keys) else 3


def rules(version: int) -> list[Rule]:
    """The names of release 2 or 3."""
    return {2: VERSION_2, 3: VERSION_3}[version]


def with_biases(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With a bias of zero for each projection of the pyramid."""
    biases = {key.removesuffix("weight") + "bias": value.new_zeros(value.shape[:1])
              for key, value in published.items() if re.fullmatch(r"input_proj\.\d+\.0\.weight", key)}
    return {**biases, **published}


def without_biases(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the biases of the pyramid's projections. Raises ValueError if one is not zero."""
    kept = {}
    for key, value in published.items():
        if not re.fullmatch(r"input_proj\.\d+\.0\.bias", key):
            kept[key] = value
        elif bool(value.any()):
            raise ValueError(f"{key}: MMDetection has no such bias, and this one is not zero")
    return kept


def with_counters(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the counter that each of the backbone's batch norms has there."""
    counters = {f"{match[1]}num_batches_tracked": torch.zeros((), dtype=torch.int64)
                for match in map(BATCH_NORM.fullmatch, theirs) if match}
    return {**theirs, **counters}


def _neck() -> list[Rule]:
    rules = [("neck.convs.#.conv.", "input_proj.#.0."), ("neck.convs.#.gn.", "input_proj.#.1.")]
    for extra in range(3):
        level = FINEST_MAPS + extra
        rules += [(f"neck.extra_convs.{extra}.conv.", f"input_proj.{level}.0."),
                  (f"neck.extra_convs.{extra}.gn.", f"input_proj.{level}.1.")]
    return rules


def layers(theirs: str, stack: str, norms: tuple[int, ...]) -> list[Rule]:
    """Norms by their published number, in the order of use."""
    return [(f"{theirs}norms.{place}.", f"transformer.{stack}.layers.#.norm{number}.")
            for place, number in enumerate(norms)]


def _heads() -> list[Rule]:
    return [("bbox_head.cls_branches.#.", "class_embed.#."),
            *((f"bbox_head.reg_branches.#.{2 * index}.", f"bbox_embed.#.layers.{index}.") for index in range(3))]


def _version_3() -> list[Rule]:
    encoder, decoder = "encoder.layers.#.", "decoder.layers.#."
    published = {encoder: f"transformer.{encoder}", decoder: f"transformer.{decoder}"}
    return [("backbone.", "backbone.0.body."), *_neck(), *_heads(), ("query_embedding.", "query_embed."),
            ("level_embed", "transformer.level_embed"), ("reference_points_fc.", "transformer.reference_points."),
            ("memory_trans_fc.", "transformer.enc_output."), ("memory_trans_norm.", "transformer.enc_output_norm."),
            ("pos_trans_fc.", "transformer.pos_trans."), ("pos_trans_norm.", "transformer.pos_trans_norm."),
            (f"{encoder}self_attn.", f"transformer.{encoder}self_attn."), *layers(encoder, "encoder", (1, 2)),
            (f"{decoder}self_attn.attn.", f"transformer.{decoder}self_attn."),
            (f"{decoder}cross_attn.", f"transformer.{decoder}cross_attn."), *layers(decoder, "decoder", (2, 1, 3)),
            *((f"{theirs}ffn.layers.0.0.", f"{other}linear1.") for theirs, other in published.items()),
            *((f"{theirs}ffn.layers.1.", f"{other}linear2.") for theirs, other in published.items())]


def transformer_layers(prefix: str, norms: tuple[int, ...] = (2, 1, 3),
                       cross_attention: str = "cross_attn.") -> list[Rule]:
    """The layers of MMDetection 2, which detrex has under another prefix."""
    encoder, decoder = f"{prefix}encoder.layers.#.", f"{prefix}decoder.layers.#."
    published = {encoder: "transformer.encoder.layers.#.", decoder: "transformer.decoder.layers.#."}
    return [(f"{encoder}attentions.0.", f"{published[encoder]}self_attn."), *layers(encoder, "encoder", (1, 2)),
            (f"{decoder}attentions.0.attn.", f"{published[decoder]}self_attn."),
            (f"{decoder}attentions.1.", f"{published[decoder]}{cross_attention}"), *layers(decoder, "decoder", norms),
            *((f"{theirs}ffns.0.layers.0.0.", f"{other}linear1.") for theirs, other in published.items()),
            *((f"{theirs}ffns.0.layers.1.", f"{other}linear2.") for theirs, other in published.items())]


def _version_2() -> list[Rule]:
    prefix = "bbox_head.transformer."
    return [("backbone.", "backbone.0.body."), *_neck(), *_heads(), *transformer_layers(prefix),
            ("bbox_head.query_embedding.", "query_embed."), (f"{prefix}level_embeds", "transformer.level_embed"),
            *((f"{prefix}{name}.", f"transformer.{name}.") for name in (
                "reference_points", "enc_output", "enc_output_norm", "pos_trans", "pos_trans_norm"))]


VERSION_2, VERSION_3 = _version_2(), _version_3()
