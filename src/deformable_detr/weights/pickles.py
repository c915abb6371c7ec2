"""Foreign `.pth` checkpoints, read without running the code that a pickle can carry."""

import argparse
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deformable_detr.weights import WeightsError
from deformable_detr.weights.wrappers import unwrapped

PICKLE_STARTS = (b"PK\x03\x04", b"\x80")   # zip archives and plain pickles, as torch.save writes them


class _Ignored:
    """Stands for an object of which nothing is kept."""

    def __setstate__(self, state: object) -> None:
        """Required, since without it the state would become attributes."""


_NUMPY_SCALAR, _NUMPY_ARRAY = (np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0])
ALLOWED: list[Any] = [
    argparse.Namespace, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in "bilqBILQefdS"},
    *((function, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core")    # before and since NumPy 2
      for function, name in ((_NUMPY_SCALAR, "scalar"), (_NUMPY_ARRAY, "_reconstruct"))),
    (_Ignored, "mmengine.logging.history_buffer.HistoryBuffer")]


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, on the CPU, without what training code wraps around it (`wrappers.py`).

    Apart from tensors and plain values only what the published files and MMDetection's contain is allowed: argparse's
    Namespace, NumPy's numbers and arrays, and MMEngine's records of losses, of which nothing is kept.
    Raises WeightsError if the pickle asks for anything else, the file is damaged or contains no state dict.
    """
    try:
        return unwrapped(read_content(path))
    except ValueError as error:
        raise WeightsError(str(error) if isinstance(error, WeightsError) else f"{path}: {error}") from None


def read_content(path: str | Path) -> Any:
    """All of a checkpoint that is allowed. Raises WeightsError if it holds anything else, or is damaged."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: {'expected a file, got a folder' if path.is_dir() else 'no such file'}")
    _refuse_bomb(path)
    return _unpickled(path)


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
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(ALLOWED):
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
