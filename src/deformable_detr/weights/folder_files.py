"""The files in a model folder of transformers, on a disk or on the Hub. Nothing in them is trusted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deformable_detr.documents import DocumentError, parse_json
from deformable_detr.text import quoted

CONFIG_FILE, PREPROCESSOR_FILE = "config.json", "preprocessor_config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")      # each may come in parts, listed in NAME.index.json
MAX_JSON_BYTES = 2**24      # of a config or an index; thousands of class names fit


def weights_parts(folder: Path) -> list[Path]:
    """The files with the tensors. Raises ValueError if there are none, or the index names a file elsewhere."""
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = [folder / part for part in part_names(index)]
            for part in parts:
                if not part.is_file():
                    raise ValueError(f"{index.name}: lists {quoted(part.name)}, which is not in the folder")
            return parts
    raise ValueError(f"expected {' or '.join(WEIGHTS_FILES)} in the folder, whole or in parts")


def part_names(index: Path) -> list[str]:
    """The files that an index lists. Raises ValueError for one that would lie elsewhere."""
    files = read_object(index).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise ValueError(f"{index.name}: expected a weight_map of names of files")
    names = sorted(set(files.values()))
    for name in names:
        if Path(name).name != name or name in ("", "..") or "\\" in name:
            raise ValueError(f"{index.name}: expected the names of files in this folder, got {quoted(name)}")
    return names


def read_object(file: Path) -> Mapping[str, Any]:
    """The object in a JSON file. Raises ValueError."""
    if not file.is_file():      # a pipe would be waited for
        raise ValueError(f"{file.name}: expected a file")
    if file.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{file.name}: expected at most {MAX_JSON_BYTES:,} bytes")
    try:
        content = parse_json(file.read_bytes())
    except DocumentError as error:
        raise ValueError(f"{file.name}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file.name}: expected an object, got {type(content).__name__}")
    return content
