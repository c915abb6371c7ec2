"""What foreign files say of a model beside its tensors: fields of our configs, checked, since files are not trusted."""

import argparse
import math
from collections.abc import Mapping
from typing import Any

from deformable_detr.text import quoted

MOST_QUERIES = 100_000
KINDS: dict[str, type] = {"num_heads": int, "refine": bool, "two_stage": bool, "dilation": bool, "num_queries": int}

# The authors' command-line arguments, which their checkpoints keep, and our fields.
ARGUMENTS = {"nheads": "num_heads", "dilation": "dilation", "num_queries": "num_queries", "with_box_refine": "refine",
             "two_stage": "two_stage", "dropout": "dropout"}
# What our models have, where the authors' code has a choice.
FIXED: dict[str, tuple[object, ...]] = {
    "position_embedding": ("sine", "v2"), "position_embedding_scale": (2 * math.pi,), "pre_norm": (False,),
    "num_patterns": (0,), "pe_temperatureH": (20,), "pe_temperatureW": (20,)}
EQUAL = ("enc_n_points", "dec_n_points")


def is_whole_turn(scale: object) -> bool:
    """Whether the scale of a position is 2 pi, in whatever digits it was written."""
    return isinstance(scale, float) and math.isclose(scale, 2 * math.pi, rel_tol=1e-6)


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of our configs. Raises ValueError for a value of the wrong kind, and for numbers that fill the memory."""
    for name, kind in KINDS.items():
        value = settings.get(name, kind())
        if type(value) is not kind or int(value) > MOST_QUERIES:
            raise ValueError(f"{name}: expected {kind.__name__}, at most {MOST_QUERIES}, got {quoted(value)}")
    return dict(settings)


def settings_of_checkpoint(content: Any) -> dict[str, Any]:
    """Fields of our configs in the `args` of the authors' checkpoints; none in others.

    Raises ValueError for a model that ours cannot be.
    """
    arguments = content.get("args") if isinstance(content, Mapping) else None
    values = vars(arguments) if isinstance(arguments, argparse.Namespace) else {}
    for name, allowed in FIXED.items():
        value = values.get(name, allowed[0])
        if value not in allowed and not (name == "position_embedding_scale" and is_whole_turn(value)):
            raise ValueError(f"args.{name}: expected {allowed[0]}, got {quoted(values[name])}")
    one, other = EQUAL
    if values.get(one) != values.get(other):
        raise ValueError(f"args.{one} and {other}: expected one number, got {quoted(values.get(one))} and "
                         f"{quoted(values.get(other))}")
    return checked_settings({field: values[name] for name, field in ARGUMENTS.items() if name in values})


def names_of_checkpoint(content: Any) -> tuple[str, ...] | None:
    """The class names that MMDetection writes beside a state dict: in version 3 `dataset_meta.classes`, in 2 `CLASSES`.

    Raises ValueError if they are not text.
    """
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return None
    of_data = meta.get("dataset_meta")
    names = of_data.get("classes", of_data.get("CLASSES")) if isinstance(of_data, Mapping) else meta.get("CLASSES")
    if not names:
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"meta: expected the names of classes, got {quoted(names)}")
    return tuple(names)
