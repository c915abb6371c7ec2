"""What a training starts from: random weights, a backbone's own, or a detector's, with other classes if need be."""

import logging
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from deformable_detr.papers import DeformableDETR, ModelConfig
from deformable_detr.papers.config import WITHOUT_WEIGHTS
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo, WeightsError, load, read_checkpoint
from deformable_detr.weights.sources import find_weights

logger = logging.getLogger(__name__)

USUAL = "two-stage"         # preset
PRETRAINED = "pretrained"   # in the place of a file: timm fetches the backbone's own weights

# What its weights were trained with, which is not what timm says of them (0.5 and 0.5).
EFFICIENTNET_LITE_MEAN = (127 / 255,) * 3
EFFICIENTNET_LITE_DEVIATION = (128 / 255,) * 3


@dataclass(frozen=True)
class Start:
    """What the user says of the start. Raises WeightsError when `weights` cannot be read."""

    preset: str | None = None                                  # "two-stage" where none is named
    changes: Mapping[str, Any] = field(default_factory=dict)   # to the preset's fields
    weights: str | Path | None = None                          # of a detector, whose config and preprocessing count
    backbone_weights: str | Path | None = None                 # a file, or "pretrained"
    size: int | None = None                                    # pixels of an image's short side
    max_size: int | None = None                                # and of its long side

    @property
    def is_open(self) -> bool:
        """Whether nobody has said where to start."""
        return not (self.preset or self.weights or self.backbone_weights or set(self.changes) - set(WITHOUT_WEIGHTS))

    @cached_property
    def detector(self) -> tuple[DeformableDETR, ModelInfo] | None:
        """What `weights` hold, with the changes. Raises ValueError for changes to what they have learned."""
        if self.weights is None:
            return None
        learned = [name for name in self.changes if name not in WITHOUT_WEIGHTS]
        if learned:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in learned)
            raise ValueError(f"--weights: they say what the model is; leave out {flags}")
        model, info = load(find_weights(self.weights))
        return with_config(model, replace(model.config, **self.changes)), info

    @property
    def config(self) -> ModelConfig:
        """The model's, but for its number of classes. Raises ValueError for changes that no model allows."""
        return self.detector[0].config if self.detector else ModelConfig.preset(self.preset or USUAL, **self.changes)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing that the weights were trained with, at the size asked for."""
        trained = self.detector[1].preprocessing if self.detector else backbone_preprocessing(self.config.backbone)
        size = self.size or trained.size
        max_size = self.max_size or (max(size, round(size * 5 / 3)) if self.size else trained.max_size)
        return replace(trained, size=size, max_size=max_size)

    def model(self, names: Sequence[str], seed: int) -> DeformableDETR:
        """The model for the classes `names`; what is random in it follows from `seed`."""
        detector = self.detector   # a first reading draws random weights, which are then overwritten
        torch.manual_seed(seed)
        if detector:
            return with_classes(*detector, names)
        config = replace(self.config, num_classes=len(names))
        if self.backbone_weights == PRETRAINED:
            return with_fetched_backbone(config)
        model = DeformableDETR(config)
        if self.backbone_weights is None:
            logger.warning("the backbone %s starts from random weights, which takes far longer to train; "
                           "--backbone-weights pretrained fetches its own, --backbone-weights FILE reads them",
                           config.backbone)
        else:
            load_backbone(model, Path(self.backbone_weights))
        return model


def backbone_preprocessing(backbone: str) -> Preprocessing:
    """What the backbone's own weights were trained with. Raises ValueError where timm knows none of this name."""
    try:
        settings = timm.get_pretrained_cfg(backbone)
    except RuntimeError as error:   # an unknown tag behind the name
        raise ValueError(f"backbone: {error}") from error
    # TensorFlow's "same" padding shifts the features of odd sizes: multiples of 32 keep them in place.
    usual = Preprocessing(divisor=32 if backbone.startswith("tf_") else 1)
    if "efficientnet_lite" in backbone:
        return replace(usual, mean=EFFICIENTNET_LITE_MEAN, deviation=EFFICIENTNET_LITE_DEVIATION)
    return replace(usual, mean=settings.mean, deviation=settings.std) if settings else usual


def with_fetched_backbone(config: ModelConfig) -> DeformableDETR:
    """The model with the backbone's weights that timm fetches. Raises WeightsError where it cannot."""
    try:
        return DeformableDETR(config, pretrained=True)
    except Exception as error:   # no network, no such weights: timm and the hub behind it raise what they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"backbone: cannot fetch the weights of {config.backbone!r} ({reason:.300})") from error


def load_backbone(model: DeformableDETR, path: Path) -> None:
    """Read the backbone's weights from a checkpoint of the timm model, or of a network of the same build.

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

    Other projects name the same tensors differently, but define them in the same order: where the number of
    tensors and every shape agree with timm's classifier, the order says which is which.
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


def with_config(model: DeformableDETR, config: ModelConfig) -> DeformableDETR:
    """The model's weights behind a config of the same tensors."""
    changed = DeformableDETR(config)
    changed.load_state_dict(model.state_dict())
    return changed


def with_classes(model: DeformableDETR, info: ModelInfo, names: Sequence[str]) -> DeformableDETR:
    """A trained detector for the classes `names`.

    Where these differ from its own, the class heads start anew, and the log says so; the rest is kept. A
    proposal head keeps its first row, which says "object" whatever the classes.
    """
    if info.names == tuple(names):
        return model
    logger.warning("the weights know other classes (%s): their class heads start anew, all else is kept",
                   reprlib.repr(info.names))
    renewed = DeformableDETR(replace(model.config, num_classes=len(names)))
    fresh = renewed.state_dict()
    state = {key: fresh[key] if ".classify." in key else tensor for key, tensor in model.state_dict().items()}
    for key, tensor in model.state_dict().items():
        if key.startswith("queries.head.classify."):
            state[key][0] = tensor[0]
    renewed.load_state_dict(state)
    return renewed
