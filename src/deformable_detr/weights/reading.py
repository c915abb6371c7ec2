"""Any weights as a model: ours or another code base's, from wherever they come."""

from pathlib import Path

import safetensors

from deformable_detr.model.network import Network
from deformable_detr.weights.folder_files import WEIGHTS_FILES
from deformable_detr.weights.foreign import load_foreign
from deformable_detr.weights.header import FORMAT
from deformable_detr.weights.info import ModelInfo
from deformable_detr.weights.native import load
from deformable_detr.weights.sources import find_weights


def read_any(source: str | Path) -> tuple[Network, ModelInfo]:
    """The model on the CPU in float32, ready for inference, and what is known about it.

    `source` is "demo", a short name such as "coco" (`deformable_detr.weights.names`), "hf:owner/name" with or without
    "@revision", the path of a file (ours, or a checkpoint of another code base), or a folder of transformers.
    `info.dialect` says whose names it had, `info.unused` which of its keys no model needs. Raises WeightsError.
    """
    path = find_weights(source)
    file = path / WEIGHTS_FILES[0] if path.is_dir() else path
    return load(file) if _is_ours(file) else load_foreign(path)


def _is_ours(file: Path) -> bool:
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            return (content.metadata() or {}).get("format") == FORMAT
    except (safetensors.SafetensorError, OSError):
        return False
