"""What an exported file says about itself: JSON under one name, checked when it is read."""

import json
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from deformable_detr.papers import Config
from deformable_detr.preprocessing import FittedPreprocessing, Preprocessing
from deformable_detr.text import printable, quoted
from deformable_detr.weights.header import read_header, write_header
from deformable_detr.weights.info import ModelInfo

ENTRY = "deformable_detr"
WEIGHTS_ENTRY = "deformable_detr_weights"      # of OpenVINO: SHA-256 of the .bin that belongs to the .xml
VERSION = 1
LONGEST_ENTRY = 2**22       # characters: thousands of names, but no memory is filled
LARGEST_SIDE = 8192         # pixels of a fixed size
LARGEST_BATCH = 8192

Op = Literal["gridsample", "gather"]
FilePrecision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class Form:
    """How a file was exported; `batch` and `size` (height, width) are None where they are free."""

    op: Op = "gridsample"
    raw: bool = False           # without normalising and without the best detections
    batch: int | None = None
    size: tuple[int, int] | None = None
    precision: FilePrecision = "fp32"       # of the heavy products
    top_k: int = 100            # of the best detections

    def __post_init__(self) -> None:
        """Raise ValueError, which names the field."""
        if self.op not in get_args(Op):
            raise ValueError(f"op: expected one of {', '.join(get_args(Op))}, got {quoted(self.op)}")
        if self.precision not in get_args(FilePrecision):
            raise ValueError(f"precision: expected one of {', '.join(get_args(FilePrecision))}, "
                             f"got {quoted(self.precision)}")
        if type(self.raw) is not bool:
            raise ValueError(f"raw: expected True or False, got {quoted(self.raw)}")
        if self.batch is not None and not (type(self.batch) is int and 1 <= self.batch <= LARGEST_BATCH):
            raise ValueError(f"batch: expected a whole number from 1 to {LARGEST_BATCH}, got {quoted(self.batch)}")
        if self.size is not None and not _is_size(self.size):
            raise ValueError(f"size: expected (height, width) of 1 to {LARGEST_SIDE} pixels, got {quoted(self.size)}")
        if type(self.top_k) is not int or self.top_k < 1:
            raise ValueError(f"top_k: expected a whole number of at least 1, got {quoted(self.top_k)}")


def write_metadata(config: Config, info: ModelInfo, form: Form) -> str:
    """The entry for a file."""
    return json.dumps({"version": VERSION, "form": vars(form), "header": write_header(config, info)})


def read_metadata(entry: str | None) -> tuple[Config, ModelInfo, Form]:
    """What `write_metadata` wrote. Raises ValueError, which names the field."""
    if not entry:
        raise ValueError(f"no entry {ENTRY!r} in its metadata: expected a file written by `ddetr export`")
    if len(entry) > LONGEST_ENTRY:
        raise ValueError(f"metadata: expected at most {LONGEST_ENTRY} characters, got {len(entry)}")
    try:
        fields: dict[str, Any] = json.loads(entry)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"malformed metadata: not JSON ({error})") from None
    try:
        version, form, header = fields["version"], dict(fields["form"]), dict(fields["header"])
        if version != VERSION:
            raise ValueError(f"metadata version {quoted(version)}, this release reads {VERSION}")
        size = form.pop("size")
        config, info = read_header(header)
        return config, info, Form(size=None if size is None else tuple(size), **form)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"malformed metadata ({printable(str(error))})") from None


def info_for_runtime(info: ModelInfo, form: Form) -> ModelInfo:
    """`info` with the preprocessing that remains to be done before the file: it may normalise by itself."""
    preprocessing = fitted(info.preprocessing, form)
    if form.size is not None:       # ... and pads to the divisor by itself: images must not outgrow its size before
        preprocessing = replace(preprocessing, divisor=1)
    if not form.raw:
        preprocessing = replace(preprocessing, mean=(0.0, 0.0, 0.0), deviation=(1 / 255, 1 / 255, 1 / 255))
    return replace(info, preprocessing=preprocessing)


def fitted(preprocessing: Preprocessing, form: Form) -> Preprocessing:
    """The preprocessing of images that have to fit into the form's size, if it has one."""
    if form.size is None:
        return preprocessing
    return FittedPreprocessing(**vars(preprocessing), room=form.size)


def _is_size(size: Any) -> bool:
    return (isinstance(size, tuple | list) and len(size) == 2
            and all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in size))
