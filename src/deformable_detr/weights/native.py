"""Our own file of weights: safetensors whose header says what the model is, so one file explains itself.

The header's text entries are `format` and `format_version`, and as JSON `config`, `names`, `category_ids`,
`preprocessing` and `provenance`. Reading one runs no code in it and allocates no more than the file is long
until every tensor is known to fit.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as serialise
from torch import Tensor

from deformable_detr.files import write_whole
from deformable_detr.papers import DeformableDETR, ModelConfig
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.text import CONTROL_CHARACTER
from deformable_detr.weights import WeightsError

FORMAT = "deformable-detr"
FORMAT_VERSION = 1
JSON_ENTRIES = ("config", "names", "category_ids", "preprocessing", "provenance")
# Pixels that a header may ask for: what a stranger's file makes of an image stays bounded.
MOST_PIXELS = {"size": 4096, "max_size": 4096, "divisor": 512}
STORED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")   # zip archives and plain pickles, as torch.save writes them


@dataclass(frozen=True)
class ModelInfo:
    """What weights need beside their config to be of use.

    `names` and `category_ids` hold one entry a class index; ids are those of the data set's annotations.
    `provenance` tells license, data, command and versions, as text. Raises ValueError when they do not fit.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_entries("names", self.names, str)
        _check_entries("category_ids", self.category_ids, int)
        _check_entries("provenance", [*self.provenance, *self.provenance.values()], str)
        for name in self.names:
            if CONTROL_CHARACTER.search(name):   # a terminal would obey it
                raise ValueError(f"names: expected no control characters, got {name!r:.100}")
        if len(self.names) != len(self.category_ids):
            raise ValueError("names and category_ids: expected one of each a class, "
                             f"got {len(self.names)} and {len(self.category_ids)}")
        if len(set(self.category_ids)) != len(self.category_ids):
            raise ValueError("category_ids: expected a different id for each class")


def save(path: str | Path, model: DeformableDETR, info: ModelInfo, *,
         dtype: torch.dtype = torch.float32) -> None:
    """Write the weights with their config and `info`.

    Floats are stored as `dtype`: float32, float16 or bfloat16. The folder is made where it is missing.
    An older file of this name stays whole until the new one is.
    Raises ValueError for another dtype, or when `info` names another number of classes than the model has.
    """
    if dtype not in STORED_DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(map(str, STORED_DTYPES))}, got {dtype}")
    _check_classes(model.config, info)
    tensors = {name: _stored(tensor, dtype) for name, tensor in model.state_dict().items()}
    entries = {"config": model.config.to_dict(), **asdict(info)}
    header = {"format": FORMAT, "format_version": str(FORMAT_VERSION),
              **{name: json.dumps(entries[name], ensure_ascii=False) for name in JSON_ENTRIES}}
    write_whole(Path(path), serialise(tensors, header))


def load(path: str | Path) -> tuple[DeformableDETR, ModelInfo]:
    """The model on the CPU in float32, ready for inference (`eval`), and what belongs to it.

    Raises WeightsError when there is no such file, it is none of ours or a newer one, or its config, header
    and tensors do not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: {'expected a file, got a folder' if path.is_dir() else 'no such file'}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            config, info = _parsed(file.metadata() or {})
            keys = list(file.keys())
            _check_tensors(config, {key: tuple(file.get_slice(key).get_shape()) for key in keys})
            tensors = {key: file.get_tensor(key) for key in keys}
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: {_foreign(path)} ({error})") from None
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path}: {' '.join(str(error).split())}") from error
    model = DeformableDETR(config)
    model.load_state_dict(tensors)
    return model.eval(), info


def _check_entries(name: str, entries: Any, kind: type) -> None:
    if not all(type(entry) is kind for entry in entries):
        raise ValueError(f"{name}: expected {kind.__name__} only, got {entries!r:.200}")


def _check_classes(config: ModelConfig, info: ModelInfo) -> None:
    if len(info.names) != config.num_classes:
        raise ValueError(f"names: expected {config.num_classes}, one a class of the model, "
                         f"got {len(info.names)}")


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _parsed(header: Mapping[str, str]) -> tuple[ModelConfig, ModelInfo]:
    if header.get("format") != FORMAT:
        raise ValueError(f"safetensors, but not written by {FORMAT}; if it holds the published detector, "
                         "read its tensors and rename them with deformable_detr.weights.from_official")
    version = header.get("format_version", "")
    if not version.isdecimal() or int(version) != FORMAT_VERSION:
        raise ValueError(f"format version {version!r}, this release reads {FORMAT_VERSION}: upgrade {FORMAT}")
    entries = {name: _json_entry(header, name) for name in JSON_ENTRIES}
    try:
        config = ModelConfig.from_dict(entries["config"])
        info = ModelInfo(tuple(entries["names"]), tuple(entries["category_ids"]),
                         _preprocessing(**entries["preprocessing"]), dict(entries["provenance"]))
    except TypeError as error:
        raise ValueError(f"malformed header ({error})") from None
    _check_classes(config, info)
    return config, info


def _preprocessing(mean: Any, deviation: Any, **sizes: Any) -> Preprocessing:
    """From an untrusted header: TypeError or ValueError for anything but 3 numbers each and whole sizes."""
    try:
        numbers = [float(number) for number in (*mean, *deviation)]
    except OverflowError as error:
        raise ValueError(f"preprocessing: {error}") from error
    if len(mean) != 3 or len(deviation) != 3 or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"preprocessing: expected 3 numbers each, got mean {mean}, deviation {deviation}")
    _check_entries("preprocessing", list(sizes.values()), int)
    for name, size in sizes.items():
        if size > MOST_PIXELS.get(name, size):
            raise ValueError(f"preprocessing: {name}: expected at most {MOST_PIXELS[name]} pixels, got {size!s:.20}")
    return Preprocessing(mean=tuple(numbers[:3]), deviation=tuple(numbers[3:]), **sizes)  # type: ignore[arg-type]


def _json_entry(header: Mapping[str, str], name: str) -> Any:
    if name not in header:
        raise ValueError(f"malformed header: no entry {name!r}")
    try:
        return json.loads(header[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"malformed header: {name!r} is not JSON ({error})") from None


def _check_tensors(config: ModelConfig, found: Mapping[str, tuple[int, ...]]) -> None:
    """Compare names and shapes with a model that has no memory behind it, however large its config says."""
    # Every layer and level has tensors of its own.
    if max(config.num_encoder_layers, config.num_decoder_layers, config.num_levels) > len(found):
        raise ValueError(f"the config asks for more layers than its {len(found)} tensors can fill")
    try:
        with torch.device("meta"):
            skeleton = DeformableDETR(config)
    except Exception as error:   # the header may name any backbone of timm, and those raise what they like
        raise ValueError(f"no model can be built from its config: {error}") from error
    expected = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    problems = {"missing": [name for name in expected if name not in found],
                "unexpected": [name for name in found if name not in expected],
                "of another shape": [f"{name} (expected {shape}, got {found[name]})"
                                     for name, shape in expected.items() if found.get(name, shape) != shape]}
    if any(problems.values()):
        raise ValueError("tensors " + "; ".join(f"{kind}: {_first_few(names)}"
                                                for kind, names in problems.items() if names))


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _foreign(path: Path) -> str:
    """What a file is that safetensors cannot open."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(PICKLE_STARTS):
        return ("a PyTorch checkpoint; weights of the published code are read by from_official("
                "read_checkpoint(path)), both in deformable_detr.weights")
    return "not a safetensors file, or a damaged one"
