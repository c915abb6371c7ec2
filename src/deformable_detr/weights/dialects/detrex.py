"""The names of detrex beside the published ones: Deformable DETR, DETR, DAB-DETR and DAB-Deformable-DETR.

Its DINO differs from the published one, in more than names: every decoder layer has heads of its own.
"""

from collections.abc import Iterable

from deformable_detr.weights.dialects.mmdetection import FINEST_MAPS, layers, transformer_layers
from deformable_detr.weights.dialects.rules import Rule

PAPERS = ("deformable-detr", "detr", "dab-detr", "dab-deformable-detr")
BUFFERS = (r"pixel_(mean|std)",)    # in a file, of no use


def paper_of(keys: Iterable[str]) -> str:
    """The paper that has these keys. Raises ValueError for detrex's DINO."""
    present = set(keys)
    if "label_enc.weight" in present:
        raise ValueError("state dict: detrex's DINO is another detector than the published one: each decoder layer has "
                         "heads of its own, and it encodes positions differently")
    if "anchor_box_embed.weight" in present:
        return "dab-detr"
    if "refpoint_embed.weight" in present:
        return "dab-deformable-detr"
    return "deformable-detr" if any(".sampling_offsets." in key for key in present) else "detr"


def rules(paper: str) -> list[Rule]:
    """The names for one of `PAPERS`."""
    return {"deformable-detr": DEFORMABLE_DETR, "detr": DETR, "dab-detr": DAB_DETR,
            "dab-deformable-detr": DAB_DEFORMABLE_DETR}[paper]


def _backbone() -> list[Rule]:
    body = "backbone.0.body."
    rules = [("backbone.stem.conv1.", f"{body}conv1."), ("backbone.stem.conv1.norm.", f"{body}bn1.")]
    for stage in range(1, 5):
        theirs, published = f"backbone.res{stage + 1}.#.", f"{body}layer{stage}.#."
        for number in range(1, 4):
            rules += [(f"{theirs}conv{number}.", f"{published}conv{number}."),
                      (f"{theirs}conv{number}.norm.", f"{published}bn{number}.")]
        rules += [(f"{theirs}shortcut.", f"{published}downsample.0."),
                  (f"{theirs}shortcut.norm.", f"{published}downsample.1.")]
    return rules


def _neck() -> list[Rule]:
    rules = [("neck.convs.#.conv.", "input_proj.#.0."), ("neck.convs.#.norm.", "input_proj.#.1.")]
    for extra in range(3):
        level = FINEST_MAPS + extra
        rules += [(f"neck.extra_convs.{extra}.conv.", f"input_proj.{level}.0."),
                  (f"neck.extra_convs.{extra}.norm.", f"input_proj.{level}.1.")]
    return rules


def _same(*names: str) -> list[Rule]:
    return [(name, name) for name in names]


_HEADS = _same("class_embed.", "bbox_embed.", "transformer.decoder.bbox_embed.", "transformer.decoder.class_embed.")
_DEFORMABLE = [*_backbone(), *_neck(), *_HEADS, *transformer_layers("transformer."),
               ("transformer.level_embeds", "transformer.level_embed")]
DEFORMABLE_DETR = [*_DEFORMABLE, ("query_embedding.", "query_embed."), *_same(*(
    f"transformer.{name}." for name in ("reference_points", "enc_output", "enc_output_norm", "pos_trans",
                                        "pos_trans_norm")))]
DAB_DEFORMABLE_DETR = [*_DEFORMABLE, *_same("tgt_embed.", "refpoint_embed.", "transformer.decoder.query_scale.",
                                            "transformer.decoder.ref_point_head.")]

_ENCODER_ATTENTION = ("transformer.encoder.layers.#.attentions.0.attn.", "transformer.encoder.layers.#.self_attn.")
_DENSE = [*_backbone(), *_HEADS, *_same("input_proj."), _ENCODER_ATTENTION,
          ("transformer.decoder.post_norm_layer.", "transformer.decoder.norm.")]
DETR = [*_DENSE, *_same("query_embed."), *(
    rule for rule in transformer_layers("transformer.", (1, 2, 3), "multihead_attn.")
    if "attentions.1." not in rule[0] and "encoder.layers.#.attentions" not in rule[0]),
    ("transformer.decoder.layers.#.attentions.1.attn.", "transformer.decoder.layers.#.multihead_attn.")]

_PARTS = {"query_content": "qcontent", "query_pos": "qpos", "key_content": "kcontent", "key_pos": "kpos", "value": "v"}


def _dab_layers() -> list[Rule]:
    encoder, decoder = "transformer.encoder.layers.#.", "transformer.decoder.layers.#."
    rules = [*layers(encoder, "encoder", (1, 2)), *layers(decoder, "decoder", (1, 2, 3))]
    for place, short, attention in ((0, "sa", "self_attn"), (1, "ca", "cross_attn")):
        theirs = f"{decoder}attentions.{place}."
        rules += [(f"{theirs}{name}_proj.", f"{decoder}{short}_{other}_proj.") for name, other in _PARTS.items()]
        rules.append((f"{theirs}out_proj.", f"{decoder}{attention}.out_proj."))
    rules.append((f"{decoder}attentions.1.query_pos_sine_proj.", f"{decoder}ca_qpos_sine_proj."))
    for stack in (encoder, decoder):
        rules += [(f"{stack}ffns.0.layers.0.0.", f"{stack}linear1."), (f"{stack}ffns.0.layers.1.", f"{stack}linear2."),
                  (f"{stack}ffns.0.activation.", f"{stack}activation."),
                  (f"{stack}ffns.0.layers.0.1.", f"{stack}activation.")]     # the same module again
    return rules


DAB_DETR = [*_DENSE, *_dab_layers(), ("anchor_box_embed.", "refpoint_embed."), *_same(*(
    f"transformer.{name}." for name in ("encoder.query_scale", "decoder.query_scale", "decoder.ref_point_head",
                                        "decoder.ref_anchor_head")))]
