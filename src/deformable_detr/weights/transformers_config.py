"""What transformers' `config.json` and `preprocessor_config.json` say of a model, read and written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deformable_detr.papers.config import Config
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.text import quoted
from deformable_detr.weights.coco import Classes, named_classes, usual_classes
from deformable_detr.weights.folder_files import read_object
from deformable_detr.weights.info import ModelInfo
from deformable_detr.weights.settings import checked_settings, is_whole_turn

MOST_PIXELS = 4096

# Fields that must be equal, as our configs have one for both stacks; and their defaults, which depend on the model for
# the last.
EQUAL = (("encoder_attention_heads", "decoder_attention_heads", 8), ("encoder_n_points", "decoder_n_points", 4),
         ("encoder_ffn_dim", "decoder_ffn_dim", None))
OTHER_NAMES = {"num_attention_heads": "encoder_attention_heads"}
# Fields that the tensors tell too, with which they must agree.
SIZES = {"encoder_layers": "num_encoder_layers", "decoder_layers": "num_decoder_layers", "d_model": "width",
         "hidden_size": "width", "encoder_ffn_dim": "ffn_width", "num_feature_levels": "num_levels",
         "encoder_n_points": "num_points", "num_queries": "num_queries"}
# What our models have, where transformers has a choice.
FIXED = {"position_embedding_type": "sine", "num_patterns": 0, "normalize_before": False, "keep_query_pos": False,
         "query_dim": 4, "temperature_height": 20, "temperature_width": 20}
STRIDES = (None, 16, 32)    # of the backbone's last stage: 16 is dilated, None the default of 32
# How our preprocessing works, where transformers has a choice; 2 is bilinear.
PREPARED = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255, "resample": 2,
            "do_center_crop": False, "do_flip_channel_order": False, "do_bgr": False, "offset": False, "pad_size": None}
# The processors that work so, without the endings that tell releases and libraries apart. DAB-DETR's is Conditional
# DETR's: its scores are sigmoids, while DETR's leave out a class for "no object".
PROCESSORS = {"deformable-detr": "DeformableDetr", "detr": "Detr", "dab-detr": "ConditionalDetr"}
ENDINGS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
MODEL_TYPES = {"deformable-detr": "deformable_detr", "detr": "detr", "dab-detr": "dab-detr"}
ARCHITECTURES = {"deformable-detr": "DeformableDetrForObjectDetection", "detr": "DetrForObjectDetection",
                 "dab-detr": "DabDetrForObjectDetection"}


def read_settings(config_file: Path) -> dict[str, Any]:
    """Fields of our configs, some of which the tensors tell too. Raises ValueError for a model that ours cannot be."""
    content = _with_usual_names(read_object(config_file))
    known = {model_type: paper for paper, model_type in MODEL_TYPES.items()}
    if content.get("model_type") not in known:
        raise ValueError(f"model_type: expected {' or '.join(known)}, got {quoted(content.get('model_type'))}")
    _check_choices(content)
    settings = {field: content[name] for name, field in SIZES.items() if name in content}
    settings |= {"num_heads": content.get("encoder_attention_heads", 8), "dilation": _is_dilated(content),
                "dropout": content.get("dropout", 0.1)}
    if content["model_type"] == MODEL_TYPES["deformable-detr"]:
        settings |= {"refine": content.get("with_box_refine", False), "two_stage": content.get("two_stage", False)}
    nested = _object(content, "backbone_config")
    backbone = nested.get("backbone") or content.get("backbone")
    if not isinstance(backbone, str | None):
        raise ValueError(f"backbone: expected a name, got {quoted(backbone)}")
    if backbone:        # early files name none
        settings["backbone"] = backbone
    if content.get("two_stage"):
        settings["num_queries"] = content.get("two_stage_num_proposals", 300)
    return checked_settings(settings)


def _check_choices(content: Mapping[str, Any]) -> None:
    """Raise ValueError for what our models have otherwise."""
    activation = "prelu" if content["model_type"] == "dab-detr" else "relu"
    for name, value in {**FIXED, "activation_function": activation}.items():
        if content.get(name, value) != value:
            raise ValueError(f"{name}: expected {value!r}, got {quoted(content[name])}")
    scale = content.get("sine_position_embedding_scale")
    if scale is not None and not is_whole_turn(scale):
        raise ValueError(f"sine_position_embedding_scale: expected 2 pi, got {quoted(scale)}")
    for one, other, default in EQUAL:
        values = content.get(one, default), content.get(other, default)
        if values[0] != values[1] and None not in values:
            raise ValueError(f"{one} and {other}: expected one number, got {quoted(values[0])} and "
                             f"{quoted(values[1])}")


def _with_usual_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """A config in which each field has one name: transformers reads some by two."""
    usual = {name: value for name, value in content.items() if name not in OTHER_NAMES}
    for name, field in OTHER_NAMES.items():
        if name in content and usual.setdefault(field, content[name]) != content[name]:
            raise ValueError(f"{name} and {field}: expected one number, got {quoted(content[name])} and "
                             f"{quoted(usual[field])}")
    return usual


def _is_dilated(content: Mapping[str, Any]) -> bool:
    """Whether the backbone's last stage is dilated: its own config says it, and where there is none, `dilation`."""
    dilation = content.get("dilation")
    of_backbone = [_object(content, name) for name in ("backbone_config", "backbone_kwargs")]
    strides = [options.get("output_stride") for options in of_backbone]
    for stride in strides:
        if stride not in STRIDES:
            raise ValueError(f"output_stride: expected 16 or 32, got {quoted(stride)}")
    if dilation not in (None, False, True):
        raise ValueError(f"dilation: expected true or false, got {quoted(dilation)}")
    if dilation and any(of_backbone) and 16 not in strides:
        raise ValueError("dilation: true, while the backbone's config does not say output_stride 16")
    return bool(dilation) or 16 in strides


def _object(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def read_classes(config_file: Path, num_classes: int) -> Classes:
    """The names of `id2label`; where it says nothing, the usual ones. Raises ValueError for other class numbers."""
    labels = read_object(config_file).get("id2label")
    if not labels:
        return usual_classes(num_classes)
    if not isinstance(labels, dict) or set(labels) != set(map(str, range(num_classes))):
        shown = ", ".join(list(labels)[:3]) if isinstance(labels, dict) else labels
        raise ValueError(f"id2label: expected the {num_classes} numbers from 0 to {num_classes - 1}, the rows of the "
                         f"class head, got {len(labels)}, such as {quoted(shown)}")
    names = tuple(labels[str(number)] for number in range(num_classes))
    if not all(isinstance(name, str) for name in names):
        raise ValueError("id2label: expected text for every class")
    if names == tuple(f"LABEL_{number}" for number in range(num_classes)):     # what transformers writes for no names
        return usual_classes(num_classes)
    return named_classes(names)


def read_preprocessing(file: Path) -> Preprocessing:
    """Sizes and colours; the published ones where the file says nothing."""
    if not file.exists():
        return Preprocessing()
    content = read_object(file)
    processor = content.get("image_processor_type", content.get("feature_extractor_type"))
    known = [name + ending for name in PROCESSORS.values() for ending in ENDINGS]
    if processor not in (None, *known):
        raise ValueError(f"image_processor_type: expected one of this family's, such as {known[0]}, "
                         f"got {quoted(processor)}")
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
    return {"image_processor_type": PROCESSORS[config.paper] + ENDINGS[0],
            "do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": True,
            "size": {"shortest_edge": preprocessing.size, "longest_edge": preprocessing.max_size},
            "image_mean": list(preprocessing.mean), "image_std": list(preprocessing.deviation)}


def as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
