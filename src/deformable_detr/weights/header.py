"""The header of our own weights: text entries that say what the model is, so that one file explains itself.

They are `format` and `format_version`, and as JSON `config`, `names`, `category_ids`, `preprocessing`,
`postprocessing` and `provenance`. Headers are not trusted: every field is checked and bounded.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from deformable_detr.detections import Postprocessing
from deformable_detr.papers import Config
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.text import quoted
from deformable_detr.weights.info import ModelInfo, check_types

FORMAT = "deformable-detr"
FORMAT_VERSION = 1
JSON_ENTRIES = ("config", "names", "category_ids", "preprocessing", "postprocessing", "provenance")
# Pixels that a header may ask for: images become no larger because of a stranger's file.
MOST_PIXELS = {"size": 4096, "max_size": 4096, "divisor": 512}


def write_header(config: Config, info: ModelInfo) -> dict[str, str]:
    """The entries of the header. Raises ValueError if the numbers of classes differ."""
    _check_classes(config, info)
    entries = {"config": config.to_dict(), **asdict(info)}
    return {"format": FORMAT, "format_version": str(FORMAT_VERSION),
            **{name: json.dumps(entries[name], ensure_ascii=False) for name in JSON_ENTRIES}}


def read_header(header: Mapping[str, str]) -> tuple[Config, ModelInfo]:
    """What `write_header` wrote, in this release or an earlier one. Raises ValueError, which names the field."""
    if header.get("format") != FORMAT:
        raise ValueError(f"safetensors, but not written by {FORMAT}; read_any(path) of deformable_detr.weights reads "
                         "those of other code bases")
    version = header.get("format_version", "")
    if version != str(FORMAT_VERSION):
        raise ValueError(f"format version {quoted(version)}, this release reads {FORMAT_VERSION}: upgrade {FORMAT}")
    entries = {name: _json_entry(header, name) for name in JSON_ENTRIES if name in header or name != "postprocessing"}
    try:
        # Files from before there was postprocessing have its one setting in the config.
        former = {"nms_threshold": entries["config"].pop("nms_threshold", 1.0)}
        config = Config.from_dict(entries["config"])
        info = ModelInfo(tuple(entries["names"]), tuple(entries["category_ids"]),
                         _preprocessing(**entries["preprocessing"]), dict(entries["provenance"]),
                         _postprocessing(**entries.get("postprocessing", former)))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"malformed header ({error})") from None
    _check_classes(config, info)
    return config, info


def _json_entry(header: Mapping[str, str], name: str) -> Any:
    if name not in header:
        raise ValueError(f"malformed header: no entry {name!r}")
    try:
        return json.loads(header[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"malformed header: {name!r} is not JSON ({error})") from None


def _preprocessing(mean: Any, deviation: Any, **sizes: Any) -> Preprocessing:
    """Raises TypeError or ValueError for anything but 3 numbers each and whole sizes."""
    colours = []
    for name, values in (("mean", mean), ("deviation", deviation)):
        if len(values) != 3 or not all(type(value) in (int, float) for value in values):
            raise ValueError(f"preprocessing: {name}: expected 3 numbers, got {quoted(values)}")
        try:
            colours.append(tuple(map(float, values)))
        except OverflowError as error:
            raise ValueError(f"preprocessing: {name}: {error}") from error
    check_types("preprocessing", sizes.values(), int)
    for name, size in sizes.items():
        if size > MOST_PIXELS.get(name, size):
            raise ValueError(f"preprocessing: {name}: expected at most {MOST_PIXELS[name]} pixels, got {size!s:.20}")
    return Preprocessing(mean=colours[0], deviation=colours[1], **sizes)


def _postprocessing(**numbers: Any) -> Postprocessing:
    if not all(type(number) in (int, float) for number in numbers.values()):
        raise ValueError(f"postprocessing: expected numbers, got {quoted(numbers)}")
    return Postprocessing(**numbers)


def _check_classes(config: Config, info: ModelInfo) -> None:
    if len(info.names) != config.num_classes:
        raise ValueError(f"names: expected {config.num_classes}, one a class of the model, got {len(info.names)}")
