"""The names of Hugging Face's `transformers` beside the published ones: Deformable DETR, DETR and DAB-DETR.

Written are the names of release 4, which release 5 reads as well; both are read.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from deformable_detr.weights.dialects.rules import Rule

PAPERS = ("deformable-detr", "detr", "dab-detr")
PROJECTIONS = ("q", "k", "v")


def paper_of(keys: Iterable[str]) -> str:
    """The paper that has these keys."""
    present = set(keys)
    if "model.query_refpoint_embeddings.weight" in present:
        return "dab-detr"
    return "detr" if "class_labels_classifier.weight" in present else "deformable-detr"


def rules(paper: str) -> list[Rule]:
    """The names of release 4, for one of `PAPERS`."""
    return {"deformable-detr": DEFORMABLE_DETR, "detr": DETR, "dab-detr": DAB_DETR}[paper]


def reading_rules(paper: str) -> list[Rule]:
    """The names of both releases."""
    older = rules(paper)
    newer = [("model.backbone.model.", "backbone.0.body.")]
    for theirs, published in older:
        if re.search(r"\.fc\d\.$", theirs):
            newer.append((re.sub(r"\.(fc\d\.)$", r".mlp.\1", theirs), published))
        elif theirs.endswith(("self_attn.", "encoder_attn.")):
            newer.append((f"{theirs}o_proj.", f"{published}out_proj."))
    return [*older, *newer]


def with_packed_projections(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The three projections of each attention as one tensor, `in_proj_weight` or `in_proj_bias`, as PyTorch has it."""
    packed = dict(state_dict)
    for key, value in state_dict.items():
        match = re.fullmatch(r"(.+attn)\.q_proj\.(weight|bias)", key)
        names = [f"{match[1]}.{part}_proj.{match[2]}" for part in PROJECTIONS] if match else []
        if match and all(name in state_dict for name in names):
            if not value.ndim or len({state_dict[name].shape for name in names}) != 1:
                raise ValueError(f"{match[1]}: expected q_proj, k_proj and v_proj of one shape")
            packed[f"{match[1]}.in_proj_{match[2]}"] = torch.cat([packed.pop(name) for name in names])
    return packed


def with_separate_projections(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The opposite of `with_packed_projections`."""
    separate: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        match = re.fullmatch(r"(.+)\.in_proj_(weight|bias)", key)
        if match is None:
            separate[key] = value
        else:
            separate |= {f"{match[1]}.{part}_proj.{match[2]}": chunk
                         for part, chunk in zip(PROJECTIONS, value.chunk(3), strict=True)}
    return separate


def _layers(stack: str, norms: dict[str, str], attentions: dict[str, str]) -> list[Rule]:
    theirs, published = f"model.{stack}.layers.#.", f"transformer.{stack}.layers.#."
    return [*((f"{theirs}{name}.", f"{published}{other}.") for name, other in (norms | attentions).items()),
            (f"{theirs}fc1.", f"{published}linear1."), (f"{theirs}fc2.", f"{published}linear2.")]


BACKBONE = ("model.backbone.conv_encoder.model.", "backbone.0.body.")
ENCODER_NORMS = {"self_attn_layer_norm": "norm1", "final_layer_norm": "norm2"}

DEFORMABLE_DETR = [
    BACKBONE, ("model.", "transformer."), ("model.input_proj.", "input_proj."),
    ("model.query_position_embeddings.", "query_embed."), ("class_embed.", "class_embed."),
    ("bbox_embed.", "bbox_embed."),
    *_layers("encoder", ENCODER_NORMS, {"self_attn": "self_attn"}),
    *_layers("decoder", {"encoder_attn_layer_norm": "norm1", "self_attn_layer_norm": "norm2",
                         "final_layer_norm": "norm3"}, {"self_attn": "self_attn", "encoder_attn": "cross_attn"})]

DETR = [
    BACKBONE, ("model.input_projection.", "input_proj."), ("model.query_position_embeddings.", "query_embed."),
    ("model.decoder.layernorm.", "transformer.decoder.norm."), ("class_labels_classifier.", "class_embed."),
    ("bbox_predictor.", "bbox_embed."),
    *_layers("encoder", ENCODER_NORMS, {"self_attn": "self_attn"}),
    *_layers("decoder", {"self_attn_layer_norm": "norm1", "encoder_attn_layer_norm": "norm2",
                         "final_layer_norm": "norm3"}, {"self_attn": "self_attn", "encoder_attn": "multihead_attn"})]

_SELF, _CROSS = "model.decoder.layers.#.self_attn.", "model.decoder.layers.#.cross_attn."
_PUBLISHED = "transformer.decoder.layers.#."
_PARTS = {"query_content": "qcontent", "query_pos": "qpos", "key_content": "kcontent", "key_pos": "kpos", "value": "v"}
DAB_DETR = [
    ("model.backbone.conv_encoder.model._backbone.", "backbone.0.body."),
    ("model.input_projection.", "input_proj."), ("model.query_refpoint_embeddings.", "refpoint_embed."),
    *_layers("encoder", {**ENCODER_NORMS, "activation_fn": "activation"}, {"self_attn": "self_attn"}),
    ("model.encoder.query_scale.", "transformer.encoder.query_scale."),
    *((f"{_SELF}self_attn_{name}_proj.", f"{_PUBLISHED}sa_{other}_proj.") for name, other in _PARTS.items()),
    *((f"{_CROSS}cross_attn_{name}_proj.", f"{_PUBLISHED}ca_{other}_proj.") for name, other in _PARTS.items()),
    (f"{_CROSS}cross_attn_query_pos_sine_proj.", f"{_PUBLISHED}ca_qpos_sine_proj."),
    (f"{_SELF}self_attn.output_proj.", f"{_PUBLISHED}self_attn.out_proj."),
    (f"{_CROSS}cross_attn.output_proj.", f"{_PUBLISHED}cross_attn.out_proj."),
    (f"{_SELF}self_attn_layer_norm.", f"{_PUBLISHED}norm1."),
    (f"{_CROSS}cross_attn_layer_norm.", f"{_PUBLISHED}norm2."),
    *((f"model.decoder.layers.#.mlp.{name}.", f"{_PUBLISHED}{other}.") for name, other in (
        ("final_layer_norm", "norm3"), ("fc1", "linear1"), ("fc2", "linear2"), ("activation_fn", "activation"))),
    ("model.decoder.layernorm.", "transformer.decoder.norm."),
    *((f"model.decoder.{name}.", f"transformer.decoder.{name}.") for name in (
        "query_scale", "ref_point_head", "ref_anchor_head", "bbox_embed")),
    ("class_embed.", "class_embed."), ("bbox_predictor.", "bbox_embed.")]
