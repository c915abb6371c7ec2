"""Foreign `.pth` checkpoints, read without running the code that a pickle can carry."""

import argparse
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deformable_detr.weights import WeightsError


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, on the CPU: its `model` entry, or the checkpoint itself.

    Apart from tensors and plain values only `argparse.Namespace` is allowed, which the published files contain.
    Raises WeightsError if the pickle asks for anything else, the file is damaged or contains no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: {'expected a file, got a folder' if path.is_dir() else 'no such file'}")
    _refuse_bomb(path)
    content = _unpickled(path)
    state_dict = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state_dict, dict) or not state_dict:
        raise WeightsError(f"{path}: expected a state dict, got {type(state_dict).__name__}")
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path}: expected a state dict of tensors, got {type(value).__name__} "
                               f"at {key!r}")
    return dict(state_dict)


def _refuse_bomb(path: Path) -> None:
    """Raise WeightsError for an archive that would become larger than its file; PyTorch never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:   # no archive, or a damaged one: reported when it is read
        return
    size = sum(entry.file_size for entry in entries)
    if size > path.stat().st_size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise WeightsError(f"{path}: refused, since its archive is compressed or would become larger than the file "
                           f"({size:,} bytes), as no file of PyTorch's is")


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:   # a damaged archive raises almost anything
        reason = _reason(str(error) or type(error).__name__)
    raise WeightsError(f"{path}: {reason}")


def _reason(message: str) -> str:
    """What PyTorch's message means, without its advice to switch the protection off."""
    forbidden = re.search(r"GLOBAL (\S+)", message)
    if forbidden:
        return f"refused, since its pickle asks for {forbidden[1]}, which could run code"
    if "TorchScript" in message:
        return "refused, since it is a TorchScript archive, which contains code"
    if "legacy .tar format" in message:
        return "refused, since it is in PyTorch's former tar format, which could run code"
    if "weights_only" in message:
        return "refused, since its pickle has more than tensors and plain values, or is none of PyTorch's"
    return f"not a PyTorch checkpoint, or a damaged one ({message.strip().splitlines()[0]:.200})"
