"""What transformers' `config.json` and `preprocessor_config.json` say of a model, read and written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deformable_detr.papers.config import Config
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.text import quoted
from deformable_detr.weights.coco import Classes, usual_classes
from deformable_detr.weights.folder_files import read_object
from deformable_detr.weights.info import ModelInfo

MOST_QUERIES = 100_000
MOST_PIXELS = 4096

# Fields that must be equal, as our configs have one for both stacks.
EQUAL = (("encoder_attention_heads", "decoder_attention_heads"), ("encoder_n_points", "decoder_n_points"),
         ("encoder_ffn_dim", "decoder_ffn_dim"))
# What our models have, where transformers has a choice.
FIXED = {"position_embedding_type": "sine", "num_patterns": 0, "normalize_before": False, "keep_query_pos": False,
         "sine_position_embedding_scale": None, "query_dim": 4, "temperature_height": 20, "temperature_width": 20}
# How our preprocessing works, where transformers has a choice; 2 is bilinear.
PREPARED = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255, "resample": 2}
MODEL_TYPES = {"deformable-detr": "deformable_detr", "detr": "detr", "dab-detr": "dab-detr"}
ARCHITECTURES = {"deformable-detr": "DeformableDetrForObjectDetection", "detr": "DetrForObjectDetection",
                 "dab-detr": "DabDetrForObjectDetection"}


def read_settings(config_file: Path) -> dict[str, Any]:
    """Fields of our configs that the tensors do not tell. Raises ValueError for a model that ours cannot be."""
    content = read_object(config_file)
    known = {model_type: paper for paper, model_type in MODEL_TYPES.items()}
    if content.get("model_type") not in known:
        raise ValueError(f"model_type: expected {' or '.join(known)}, got {quoted(content.get('model_type'))}")
    activation = "prelu" if content["model_type"] == "dab-detr" else "relu"
    for name, value in {**FIXED, "activation_function": activation}.items():
        if content.get(name, value) != value:
            raise ValueError(f"{name}: expected {value!r}, got {quoted(content[name])}")
    for one, other in EQUAL:
        if content.get(one) != content.get(other) and one in content and other in content:
            raise ValueError(f"{one} and {other}: expected one number, got {quoted(content[one])} and "
                             f"{quoted(content[other])}")
    nested, options = (found if isinstance(found := content.get(name), dict) else {}
                       for name in ("backbone_config", "backbone_kwargs"))
    is_dilated = content.get("dilation", False) or 16 in (nested.get("output_stride"), options.get("output_stride"))
    settings = {"num_heads": content.get("encoder_attention_heads", 8), "refine": content.get("with_box_refine", False),
                "dilation": is_dilated, "dropout": content.get("dropout", 0.1)}
    backbone = nested.get("backbone") or content.get("backbone")
    if isinstance(backbone, str):       # early files name none
        settings["backbone"] = backbone
    if content.get("two_stage"):
        settings["num_queries"] = content.get("two_stage_num_proposals", 300)
    for name, kind in (("num_heads", int), ("refine", bool), ("dilation", bool), ("num_queries", int)):
        value = settings.get(name, kind())
        if type(value) is not kind or int(value) > MOST_QUERIES:
            raise ValueError(f"{name}: expected {kind.__name__}, at most {MOST_QUERIES}, got {quoted(value)}")
    return settings


def read_classes(config_file: Path, num_classes: int) -> Classes:
    """The names of `id2label`; where it says nothing, the usual ones."""
    labels = read_object(config_file).get("id2label")
    if not isinstance(labels, dict) or set(labels) != set(map(str, range(num_classes))):
        return usual_classes(num_classes)
    names = tuple(labels[str(number)] for number in range(num_classes))
    if not all(isinstance(name, str) for name in names):
        raise ValueError("id2label: expected text for every class")
    if names == tuple(f"LABEL_{number}" for number in range(num_classes)):     # what transformers writes for no names
        return usual_classes(num_classes)
    usual = usual_classes(num_classes)
    return Classes(names, usual.category_ids if names == usual.names else tuple(range(num_classes)))


def read_preprocessing(file: Path) -> Preprocessing:
    """Sizes and colours; the published ones where the file says nothing."""
    if not file.is_file():
        return Preprocessing()
    content = read_object(file)
    for name, expected in PREPARED.items():
        if content.get(name, expected) != expected:
            raise ValueError(f"{name}: expected {expected}, got {quoted(content[name])}")
    size = content.get("size", {"shortest_edge": 800})
    if not isinstance(size, dict):      # as written by early releases
        size = {"shortest_edge": size}
    shortest, longest = size.get("shortest_edge"), size.get("longest_edge", content.get("max_size", 1333))
    if type(shortest) is not int or type(longest) is not int or max(shortest, longest) > MOST_PIXELS:
        raise ValueError(f"size: expected shortest_edge and longest_edge up to {MOST_PIXELS}, got {quoted(size)}")
    colours = {}
    for name, field in (("image_mean", "mean"), ("image_std", "deviation")):
        values = content.get(name, getattr(Preprocessing, field))
        if not isinstance(values, list | tuple) or not all(type(value) in (int, float) for value in values):
            raise ValueError(f"{name}: expected 3 numbers, got {quoted(values)}")
        colours[field] = tuple(map(float, values))
    return Preprocessing(size=shortest, max_size=longest, **colours)


def config_content(config: Config, info: ModelInfo) -> dict[str, Any]:
    """`config.json` for transformers."""
    fields = config.to_dict()
    content: dict[str, Any] = {
        "architectures": [ARCHITECTURES[config.paper]], "model_type": MODEL_TYPES[config.paper],
        "use_timm_backbone": True, "use_pretrained_backbone": False, "backbone": config.backbone,
        "backbone_config": None, "dilation": config.dilation, "dropout": config.dropout,
        "encoder_layers": config.num_encoder_layers, "decoder_layers": config.num_decoder_layers,
        "encoder_ffn_dim": config.ffn_width, "decoder_ffn_dim": config.ffn_width, "num_queries": config.num_queries,
        "encoder_attention_heads": config.num_heads, "decoder_attention_heads": config.num_heads,
        "hidden_size" if config.paper == "dab-detr" else "d_model": config.width,
        "id2label": {str(number): name for number, name in enumerate(info.names)},
        "label2id": {name: number for number, name in enumerate(info.names)}}
    if config.paper == "deformable-detr":
        content |= {"num_feature_levels": fields["num_levels"], "encoder_n_points": fields["num_points"],
                    "decoder_n_points": fields["num_points"], "with_box_refine": fields["refine"],
                    "two_stage": fields["two_stage"], "two_stage_num_proposals": config.num_queries}
    return content


def preprocessor_content(config: Config, preprocessing: Preprocessing) -> dict[str, Any]:
    """`preprocessor_config.json` for transformers."""
    kind = "DeformableDetrImageProcessor" if config.paper == "deformable-detr" else "DetrImageProcessor"
    return {"image_processor_type": kind, "do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": True,
            "size": {"shortest_edge": preprocessing.size, "longest_edge": preprocessing.max_size},
            "image_mean": list(preprocessing.mean), "image_std": list(preprocessing.deviation)}


def as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
