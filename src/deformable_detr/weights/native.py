"""Our own file of weights: safetensors whose header says what the model is.

Reading one runs no code in it, and allocates no more than the file's length until every tensor is known to fit.
"""

from pathlib import Path

import safetensors
import torch
from safetensors.torch import save as serialise
from torch import Tensor

from deformable_detr.files import write_whole
from deformable_detr.model.network import Network
from deformable_detr.papers import Config, build_model
from deformable_detr.weights import WeightsError
from deformable_detr.weights.checks import FLOATS, Layout, check_layouts, check_values
from deformable_detr.weights.header import read_header, write_header
from deformable_detr.weights.info import ModelInfo
from deformable_detr.weights.pickles import PICKLE_STARTS

# Names in files written before the embedding of proposals was a part of its own, and today's.
FORMER_NAMES = {"queries.box_projection.": "queries.embedding.projection.",
                "queries.box_norm.": "queries.embedding.norm.", "queries.content.": "queries.embedding.content."}


def save(path: str | Path, model: Network, info: ModelInfo, *,
         dtype: torch.dtype = torch.float32) -> None:
    """Write the weights with their config and `info`.

    Floats are stored as `dtype`: float32, float16 or bfloat16. A missing folder is made. An older file of this name
    stays whole until the new one is.
    Raises ValueError for another dtype, if `info` has another number of classes than the model, and for a model that
    `load` could not read: tensors that are not those of its config, as with folded batch norms, or not finite.
    """
    if dtype not in FLOATS.values():
        raise ValueError(f"dtype: expected one of {', '.join(map(str, FLOATS.values()))}, got {dtype}")
    header = write_header(model.config, info)
    tensors = {name: _stored(tensor, dtype) for name, tensor in model.state_dict().items()}
    check_layouts(model.config, {name: Layout.of(tensor) for name, tensor in tensors.items()})
    check_values(tensors.items())
    write_whole(Path(path), serialise(tensors, header))


def load(path: str | Path) -> tuple[Network, ModelInfo]:
    """The model on the CPU in float32, ready for inference (`eval`), and what is known about it.

    Raises WeightsError if there is no such file, it is not ours or a newer one, its config, header and tensors do not
    fit together, or a tensor is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: {'expected a file, got a folder' if path.is_dir() else 'no such file'}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            config, info = read_header(file.metadata() or {})
            tensors = _read_tensors(file, config)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: {_foreign(path)} ({error})") from None
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path}: {' '.join(str(error).split())}") from error
    model = build_model(config)
    model.load_state_dict(tensors)
    return model.eval(), info


def current_name(key: str) -> str:
    """Today's name of a tensor."""
    for former, current in FORMER_NAMES.items():
        if key.startswith(former):
            return current + key.removeprefix(former)
    return key


def _read_tensors(file: safetensors.safe_open, config: Config) -> dict[str, Tensor]:
    """The tensors by today's names, checked before and after their content is read."""
    keys = {current_name(key): key for key in file.keys()}  # noqa: SIM118  (not a dict)
    twice = sorted(set(file.keys()) - set(keys.values()))
    if twice:
        raise ValueError(f"tensors under a former name and today's: {', '.join(twice)}")
    slices = {name: file.get_slice(key) for name, key in keys.items()}
    check_layouts(config, {name: Layout(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()})
    tensors = {name: file.get_tensor(key) for name, key in keys.items()}
    check_values(tensors.items())
    return tensors


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _foreign(path: Path) -> str:
    """What a file is that safetensors cannot open."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(PICKLE_STARTS):
        return "a PyTorch checkpoint, which read_any(path) of deformable_detr.weights can read"
    return "not a safetensors file, or a damaged one"
