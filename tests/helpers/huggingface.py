"""The published names of DETR and DAB-DETR as `transformers` has them."""

import re

from torch import Tensor

COMMON = {
    r"^input_proj\.": "model.input_projection.",
    r"^transformer\.decoder\.norm\.": "model.decoder.layernorm.",
    r"^transformer\.": "model.",
    r"(encoder\.layers\.\d+)\.norm1\.": r"\1.self_attn_layer_norm.",
    r"(encoder\.layers\.\d+)\.norm2\.": r"\1.final_layer_norm.",
}
DETR = {
    **COMMON,
    r"^backbone\.0\.body\.": "model.backbone.model.",
    r"^query_embed\.": "model.query_position_embeddings.",
    r"^class_embed\.": "class_labels_classifier.",
    r"^bbox_embed\.": "bbox_predictor.",
    r"(decoder\.layers\.\d+)\.norm1\.": r"\1.self_attn_layer_norm.",
    r"(decoder\.layers\.\d+)\.norm2\.": r"\1.encoder_attn_layer_norm.",
    r"(decoder\.layers\.\d+)\.norm3\.": r"\1.final_layer_norm.",
    r"\.linear([12])\.": r".mlp.fc\1.",
    r"\.multihead_attn\.": ".encoder_attn.",
    r"\.out_proj\.": ".o_proj.",
}
DAB_DETR = {
    **COMMON,
    r"^backbone\.0\.body\.": "model.backbone.conv_encoder.model._backbone.",
    r"^refpoint_embed\.": "model.query_refpoint_embeddings.",
    r"^bbox_embed\.": "bbox_predictor.",
    r"(decoder\.layers\.\d+)\.self_attn\.out_proj\.": r"\1.self_attn.self_attn.output_proj.",
    r"(decoder\.layers\.\d+)\.cross_attn\.out_proj\.": r"\1.cross_attn.cross_attn.output_proj.",
    r"(decoder\.layers\.\d+)\.sa_([qk])(content|pos)_proj\.": r"\1.self_attn.self_attn_\2_\3_proj.",
    r"(decoder\.layers\.\d+)\.ca_([qk])(content|pos|pos_sine)_proj\.": r"\1.cross_attn.cross_attn_\2_\3_proj.",
    r"(decoder\.layers\.\d+)\.sa_v_proj\.": r"\1.self_attn.self_attn_value_proj.",
    r"(decoder\.layers\.\d+)\.ca_v_proj\.": r"\1.cross_attn.cross_attn_value_proj.",
    r"_attn_q_": "_attn_query_",
    r"_attn_k_": "_attn_key_",
    r"(decoder\.layers\.\d+)\.norm1\.": r"\1.self_attn.self_attn_layer_norm.",
    r"(decoder\.layers\.\d+)\.norm2\.": r"\1.cross_attn.cross_attn_layer_norm.",
    r"(decoder\.layers\.\d+)\.norm3\.": r"\1.mlp.final_layer_norm.",
    r"(decoder\.layers\.\d+)\.linear([12])\.": r"\1.mlp.fc\2.",
    r"(decoder\.layers\.\d+)\.activation\.": r"\1.mlp.activation_fn.",
    r"\.linear([12])\.": r".fc\1.",
    r"(encoder\.layers\.\d+)\.activation\.": r"\1.activation_fn.",
}
RENAMED = {"detr": DETR, "dab-detr": DAB_DETR}


def in_names_of_transformers(official: dict[str, Tensor], paper: str) -> dict[str, Tensor]:
    """The published state dict of a paper for its `transformers` model; packed projections are taken apart."""
    state = {}
    for name, tensor in official.items():
        for pattern, replacement in RENAMED[paper].items():
            name = re.sub(pattern, replacement, name)
        if "in_proj_" in name:
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("in_proj_", f"{part}_proj.")] = chunk
        else:
            state[name] = tensor
    return state
