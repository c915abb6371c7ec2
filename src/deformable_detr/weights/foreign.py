"""Models in the files of other code bases, read and written: any dialect, as the keys say."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors.torch import save as serialise
from torch import Tensor

from deformable_detr.files import write_whole
from deformable_detr.model.network import Network
from deformable_detr.papers import Config, build_model
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import WeightsError, transformers_config
from deformable_detr.weights.checks import Layout, check_layouts, check_values
from deformable_detr.weights.coco import Classes, named_classes, usual_classes
from deformable_detr.weights.dialects.published import described_by_config
from deformable_detr.weights.dialects.reading import Translated, translated
from deformable_detr.weights.dialects.writing import Target, written
from deformable_detr.weights.folder_files import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILES, weights_parts
from deformable_detr.weights.info import ModelInfo
from deformable_detr.weights.pickles import PICKLE_STARTS, read_content
from deformable_detr.weights.settings import names_of_checkpoint, settings_of_checkpoint
from deformable_detr.weights.shapes import config_of
from deformable_detr.weights.wrappers import unwrapped, without_prefixes

HEADS = ("class_embed.", "bbox_embed.")


def load_foreign(path: str | Path) -> tuple[Network, ModelInfo]:
    """The model on the CPU in float32, ready for inference (`eval`), and what is known about it.

    `path` is a checkpoint (.pth, .bin, .safetensors) of the authors' code, transformers, MMDetection or detrex, or a
    folder of transformers. The config follows from the tensors, and from the folder's `config.json` or what else is in
    the checkpoint, which must agree. Class names are those of the folder or of MMDetection's checkpoint, or COCO's for
    80 or 91 classes. Raises WeightsError, which names the file.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    config_file = folder / CONFIG_FILE
    try:
        parts = weights_parts(path) if path.is_dir() else [path]
        has_config = config_file.exists() and (path.is_dir() or path.name in WEIGHTS_FILES)
        read = _read_parts(parts)
        settings = transformers_config.read_settings(config_file) if has_config else read.settings
        source = translated(read.tensors, refine=settings.pop("refine", None))
        config = _config(source, settings)
        tensors = {name: value.float() if value.is_floating_point() else value
                   for name, value in source.state_dict.items()}
        check_values(tensors.items())
        classes = (transformers_config.read_classes(config_file, config.num_classes) if has_config
                   else _classes(read.names, config.num_classes))
        preprocessing = (transformers_config.read_preprocessing(folder / PREPROCESSOR_FILE)
                         if has_config else Preprocessing())
        info = ModelInfo(*classes, preprocessing, dialect=source.dialect, unused=source.unused)
    except WeightsError:
        raise
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path}: {' '.join(str(error).split())}") from error
    model = build_model(config)
    model.load_state_dict(tensors)
    return model.eval(), info


def save_foreign(path: str | Path, model: Network, info: ModelInfo, to: Target) -> None:
    """Write a model under another code base's names.

    For "huggingface" a folder that `from_pretrained` opens, otherwise a file: a checkpoint of PyTorch, or safetensors
    if it is so named. Raises ValueError for a detector that the code base does not have.
    """
    path = Path(path)
    described = described_by_config(model.config)
    assert described is not None
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    check_values(state.items())
    theirs = written(Translated(state, "native", described), to)
    if to == "huggingface":
        _save_folder(path, model.config, info, theirs)
    elif path.suffix == ".safetensors":
        write_whole(path, _serialised(theirs, {}))
    else:
        buffer = io.BytesIO()
        torch.save({"state_dict" if to.startswith("mmdetection") else "model": theirs}, buffer)
        write_whole(path, buffer.getvalue())


def _config(source: Translated, settings: Mapping[str, Any]) -> Config:
    """The config of the tensors, which are exactly those of its model."""
    layouts = {name: replace(layout, dtype="F32") if layout.dtype in ("F64", "torch.float64") else layout
               for name, layout in ((name, Layout.of(tensor)) for name, tensor in source.state_dict.items())}
    config = config_of(layouts, source.described, settings)
    check_layouts(config, layouts)
    return config


def _classes(names: tuple[str, ...] | None, num_classes: int) -> Classes:
    if names is None:
        return usual_classes(num_classes)
    if len(names) != num_classes:
        raise ValueError(f"classes: expected {num_classes} names, one for each row of the class head, got {len(names)}")
    return named_classes(names)


class _Read(NamedTuple):
    """A state dict, and what else its file says of the model."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any] = {}   # noqa: RUF012 - never changed
    names: tuple[str, ...] | None = None


def _read_parts(parts: list[Path]) -> _Read:
    if len(parts) == 1:
        return _read_part(parts[0])
    tensors: dict[str, Tensor] = {}
    for part in parts:
        for key, value in _read_part(part).tensors.items():
            if key in tensors:
                raise ValueError(f"{part.name}: {key} is in another part too")
            tensors[key] = value
    return _Read(tensors)


def _read_part(path: Path) -> _Read:
    if not path.is_file():
        raise ValueError("no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return _Read(without_prefixes({key: file.get_tensor(key) for key in file.keys()}))  # noqa: SIM118
    except safetensors.SafetensorError as error:
        with path.open("rb") as file:
            if not file.read(4).startswith(PICKLE_STARTS):
                raise ValueError(f"not a safetensors file or PyTorch checkpoint, or a damaged one ({error})") from None
    content = read_content(path)
    return _Read(unwrapped(content), settings_of_checkpoint(content), names_of_checkpoint(content))


def _save_folder(folder: Path, config: Config, info: ModelInfo, tensors: dict[str, Tensor]) -> None:
    if getattr(config, "num_levels", 1) == 2:
        raise ValueError("num_levels: 2, while transformers has one level or at least the three of the backbone's maps")
    shared = config.paper == "deformable-detr" and not getattr(config, "refine", False)
    if shared:      # transformers keeps a head that all layers share once
        tensors = {key: value for key, value in tensors.items()
                   if not key.startswith(HEADS) or key.split(".")[1] == "0"}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CONFIG_FILE,
                transformers_config.as_json(transformers_config.config_content(config, info)))
    write_whole(folder / PREPROCESSOR_FILE,
                transformers_config.as_json(transformers_config.preprocessor_content(config, info.preprocessing)))
    write_whole(folder / WEIGHTS_FILES[0], _serialised(tensors, {"format": "pt"}))


def _serialised(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """As safetensors, which stores no tensor under two names."""
    return serialise({key: value.clone() for key, value in tensors.items()}, metadata)
