"""Backbones that start from their own weights: from a file of another project, or fetched by timm."""

from dataclasses import replace
from pathlib import Path

import timm
import torch
from torch import Tensor

from deformable_detr.model.network import Network
from deformable_detr.papers import Config, build_model
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import WeightsError, read_checkpoint

# What these weights were trained with, unlike what timm gives for them (0.5 and 0.5).
EFFICIENTNET_LITE_MEAN = (127 / 255,) * 3
EFFICIENTNET_LITE_DEVIATION = (128 / 255,) * 3


def backbone_preprocessing(backbone: str) -> Preprocessing:
    """What the backbone's own weights were trained with. Raises ValueError if timm has no weights of this name."""
    try:
        settings = timm.get_pretrained_cfg(backbone)
    except RuntimeError as error:   # an unknown tag after the name
        raise ValueError(f"backbone: {error}") from error
    # TensorFlow's "same" padding shifts the features of odd sizes: multiples of 32 keep them in place.
    usual = Preprocessing(divisor=32 if backbone.startswith("tf_") else 1)
    if "efficientnet_lite" in backbone:
        return replace(usual, mean=EFFICIENTNET_LITE_MEAN, deviation=EFFICIENTNET_LITE_DEVIATION)
    return replace(usual, mean=settings.mean, deviation=settings.std) if settings else usual


def with_fetched_backbone(config: Config) -> Network:
    """The model with the backbone's weights that timm fetches. Raises WeightsError if it cannot."""
    try:
        return build_model(config, pretrained=True)
    except Exception as error:   # no network, no such weights: timm and the hub below it raise many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"backbone: cannot fetch the weights of {config.backbone!r} ({reason:.300})") from error


def load_backbone(model: Network, path: Path) -> None:
    """Read the backbone's weights from a checkpoint of the timm model, or of a network of the same architecture.

    Raises WeightsError, which names what is missing, for a file that does not fit.
    """
    name = model.config.backbone
    state = {key: tensor for key, tensor in read_checkpoint(path).items() if not _is_counter(key)}
    net = model.backbone.net
    wanted = {key: tensor for key, tensor in net.state_dict().items() if not _is_counter(key)}
    # timm flattens the blocks of some networks: stages.0 becomes stages_0.
    flat = {_flat(key): key for key in wanted}
    renamed = {flat[_flat(key)]: tensor for key, tensor in _in_timm_names(state, name).items() if _flat(key) in flat}
    wrong = [key for key, tensor in wanted.items() if key not in renamed or renamed[key].shape != tensor.shape]
    if wrong:
        raise WeightsError(f"{path}: does not fit the backbone {name}: {len(wrong)} of its {len(wanted)} tensors "
                           f"are missing or of another shape, such as {wrong[0]}")
    net.load_state_dict(renamed, strict=False)   # only counters are left out, which frozen batch norm lacks


def _in_timm_names(state: dict[str, Tensor], backbone: str) -> dict[str, Tensor]:
    """`state` under timm's names.

    Other projects name the same tensors differently, but define them in the same order: if the number of tensors and
    every shape agree with timm's classifier, the order decides.
    """
    with torch.device("meta"):
        classifier = timm.create_model(backbone).state_dict()
    known = {name: tensor.shape for name, tensor in classifier.items() if not _is_counter(name)}
    if set(state) & set(known) or [tensor.shape for tensor in state.values()] != list(known.values()):
        return state
    return dict(zip(known, state.values(), strict=True))


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _flat(name: str) -> str:
    return name.replace(".", "_")
