"""The config of a model, from the shapes of its tensors and what a foreign config file says."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from deformable_detr.papers.config import Config
from deformable_detr.text import quoted
from deformable_detr.weights.checks import Layout
from deformable_detr.weights.dialects.published import Described

# ResNets by the number of blocks in each stage, and whether a block has three convolutions.
RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18", ((3, 4, 6, 3), False): "resnet34", ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101", ((3, 8, 36, 3), True): "resnet152"}

Layouts = Mapping[str, Layout]


def config_of(layouts: Layouts, described: Described, settings: Mapping[str, Any]) -> Config:
    """The config of the model with these tensors, by our names.

    `settings` are fields that a file says, such as `num_heads` and `dilation`, which shapes do not tell; fields of
    another paper are left out. Without a `backbone` it is one of the ResNets.
    Raises ValueError for tensors of no such model, and for settings that they deny.
    """
    told = {**_common(layouts, described), **_of_paper(layouts, described)}
    if "num_levels" in told:
        told["num_points"] = _num_points(layouts, settings.get("num_heads", 8), told["num_levels"])
    for name in told.keys() & settings.keys():
        if told[name] != settings[name]:
            raise ValueError(f"{name}: the tensors are those of a model with {told[name]}, but the file says "
                             f"{quoted(settings[name])}")
    known = Config.papers[described.paper].__dataclass_fields__
    fields = {name: value for name, value in settings.items() if name in known} | told
    if "backbone" not in fields:
        fields["backbone"] = _backbone(layouts)
    return Config.papers[described.paper].with_fields(fields)


def _num_points(layouts: Layouts, num_heads: int, num_levels: int) -> int:
    rows = _shape(layouts, "encoder.layers.0.attention.attention_weights.weight")[0]
    num_points, rest = divmod(rows, num_heads * num_levels)
    if rest or not num_points:
        raise ValueError(f"attention weights: expected rows for {num_heads} heads and {num_levels} levels, got {rows}")
    return num_points


def _common(layouts: Layouts, described: Described) -> dict[str, Any]:
    head = "decoder.heads.layers.0." if "decoder.heads.layers.0.classify.weight" in layouts else "decoder.heads.shared."
    rows, width = _shape(layouts, f"{head}classify.weight", 2)
    return {"width": width, "num_classes": rows - (described.paper == "detr"),
            "num_encoder_layers": _count(layouts, r"encoder\.layers\.(\d+)\."),
            "num_decoder_layers": _count(layouts, r"decoder\.layers\.(\d+)\."),
            "ffn_width": _shape(layouts, "encoder.layers.0.feed_forward.expand.weight")[0]}


def _of_paper(layouts: Layouts, described: Described) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in ("queries.embedding.weight", "queries.anchors.weight", "queries.embedding.content.weight"):
        if name in layouts:
            fields["num_queries"] = _shape(layouts, name)[0]
    if "pyramid.level_embedding" in layouts:
        fields["num_levels"] = _shape(layouts, "pyramid.level_embedding")[0]
    if described.paper == "deformable-detr":
        fields |= {"refine": described.refine, "two_stage": described.two_stage}
    if described.paper == "dino":
        kernels = [_shape(layouts, name)[-1] for name in layouts
                   if re.fullmatch(r"pyramid\.projections\.\d+\.0\.weight", name)]
        fields["num_maps"] = kernels.count(1)
    return fields


def _backbone(layouts: Layouts) -> str:
    blocks = tuple(_count(layouts, rf"backbone\.net\.layer{stage}\.(\d+)\.") for stage in range(1, 5))
    kind = blocks, "backbone.net.layer1.0.conv3.weight" in layouts
    if kind not in RESNETS:
        raise ValueError(f"backbone: expected a ResNet of 18, 34, 50, 101 or 152 layers, got stages of {blocks} blocks")
    return RESNETS[kind]


def _shape(layouts: Layouts, name: str, num_axes: int = 1) -> tuple[int, ...]:
    """The shape of a tensor with at least this many axes; the model of the config checks the rest."""
    if name not in layouts:
        raise ValueError(f"tensors missing: {name}")
    if len(layouts[name].shape) < num_axes or not all(layouts[name].shape):
        raise ValueError(f"{name}: expected a tensor with values, got the shape {layouts[name].shape}")
    return layouts[name].shape[:num_axes] if num_axes > 1 else layouts[name].shape


def _count(keys: Iterable[str], pattern: str) -> int:
    """Different numbers that `pattern` finds at the start of the keys."""
    return len({match[1] for match in (re.match(pattern, key) for key in keys) if match})
