"""What a training starts from: random weights, a backbone's own, or a detector's, with other classes if need be."""

import logging
from dataclasses import replace
from pathlib import Path

import timm
import torch
from torch import Tensor

from deformable_detr.model import DeformableDETR, ModelConfig
from deformable_detr.structures import Preprocessing
from deformable_detr.weights import WeightsError, load, read_checkpoint

logger = logging.getLogger(__name__)

# What its weights were trained with, which is not what timm says of them (0.5 and 0.5).
EFFICIENTNET_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)


def preprocessing_for(backbone: str, size: int, max_size: int) -> Preprocessing:
    """The preprocessing that the backbone's weights were trained with, at this size of pictures."""
    settings = timm.get_pretrained_cfg(backbone)
    mean, deviation = (settings.mean, settings.std) if settings else (Preprocessing.mean, Preprocessing.deviation)
    if "efficientnet_lite" in backbone:
        mean, deviation = EFFICIENTNET_LITE
    # TensorFlow's "same" padding shifts the features of odd sizes: multiples of 32 keep them in place.
    divisor = 32 if backbone.startswith("tf_") else 1
    return Preprocessing(size, max_size, tuple(mean), tuple(deviation), divisor)


def new_model(config: ModelConfig, backbone_weights: Path | None) -> DeformableDETR:
    """A model with random weights, its backbone read from a file where one is given.

    Raises WeightsError, which names what is missing, for a file that does not fit the backbone.
    """
    model = DeformableDETR(config)
    if backbone_weights is None:
        logger.warning("the backbone %s starts from random weights: training takes far longer; "
                       "give --backbone-weights FILE", config.backbone)
        return model
    state = read_checkpoint(backbone_weights)
    wanted = model.backbone.net.state_dict()
    # timm flattens the blocks of some networks: stages.0 becomes stages_0.
    flat = {name.replace(".", "_"): name for name in wanted}
    fitting = {flat[name.replace(".", "_")]: tensor for name, tensor in state.items()
               if name.replace(".", "_") in flat}
    wrong = [name for name, tensor in wanted.items() if fitting.get(name, torch.empty(0)).shape != tensor.shape]
    if wrong:
        raise WeightsError(f"{backbone_weights}: does not fit the backbone {config.backbone}: "
                           f"{len(wrong)} of its {len(wanted)} tensors are missing or of another shape, "
                           f"such as {wrong[0]}")
    model.backbone.net.load_state_dict(fitting)
    return model


def model_from_weights(path: Path, names: tuple[str, ...]) -> tuple[DeformableDETR, Preprocessing]:
    """A trained detector for the classes `names`, with its preprocessing.

    Where the classes differ from its own, the class heads start anew and the rest is kept. A proposal head
    keeps its first row, which says "object" whatever the classes. Raises WeightsError for an unreadable file.
    """
    model, info = load(path)
    if info.names == names:
        return model, info.preprocessing
    renewed = DeformableDETR(replace(model.config, num_classes=len(names)))
    state = renew_class_heads(model.state_dict(), renewed.state_dict())
    renewed.load_state_dict(state)
    logger.warning("%s knows %d other classes: its class heads start anew, all else is kept", path, len(info.names))
    return renewed, info.preprocessing


def renew_class_heads(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """`old` with the class heads of `new`."""
    state = {name: new[name] if ".classify." in name else tensor for name, tensor in old.items()}
    for name in ("queries.head.classify.weight", "queries.head.classify.bias"):
        if name in state:
            state[name][0] = old[name][0]
    return state
