"""What a training starts from, read: random weights, a pretrained backbone, or a trained detector."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from deformable_detr.detections import Postprocessing
from deformable_detr.model.network import Network
from deformable_detr.papers import Config, build_model
from deformable_detr.preprocessing import Preprocessing, usual_max_size
from deformable_detr.training.backbones import backbone_preprocessing, load_backbone, with_fetched_backbone
from deformable_detr.training.fine_tuning import with_classes
from deformable_detr.training.start import PRETRAINED, Start
from deformable_detr.weights import ModelInfo, read_any

logger = logging.getLogger(__name__)

USUAL = "two-stage"         # the preset where none is named


@dataclass(frozen=True)
class Trained:
    """A detector whose training is to continue."""

    model: Network
    info: ModelInfo


@dataclass(frozen=True)
class Origin:
    """What a training starts from, read from its files."""

    config: Config              # but for the number of classes
    preprocessing: Preprocessing
    postprocessing: Postprocessing
    trained: Trained | None
    backbone_weights: str | Path | None

    def model(self, names: Sequence[str], seed: int) -> Network:
        """The model for the classes `names`; its random weights follow from `seed`.

        Raises WeightsError for weights of the backbone that cannot be had or do not fit.
        """
        torch.manual_seed(seed)
        if self.trained:
            return with_classes(self.trained.model, self.trained.info.names, names)
        config = replace(self.config, num_classes=len(names))
        if self.backbone_weights == PRETRAINED:
            return with_fetched_backbone(config)
        model = build_model(config)
        if self.backbone_weights is None:
            logger.warning("the backbone %s starts from random weights, which takes far longer to train than its "
                           "pretrained ones (backbone_weights)", config.backbone)
        else:
            load_backbone(model, Path(self.backbone_weights))
        return model


def read_origin(start: Start) -> Origin:
    """Read what is asked for.

    Raises WeightsError if the weights cannot be read, ValueError for fields of the model that are impossible.
    """
    trained = _read_weights(start)
    if trained and start.preset and start.preset not in trained.model.config.presets:
        known = ", ".join(trained.model.config.presets)
        raise ValueError(f"preset: expected one of the weights' own paper ({known}), got {start.preset!r}")
    config = trained.model.config if trained else Config.preset(start.preset or USUAL, **start.changes)
    preprocessing = trained.info.preprocessing if trained else backbone_preprocessing(config.backbone)
    size = start.size or preprocessing.size
    max_size = start.max_size or (usual_max_size(size) if start.size else preprocessing.max_size)
    postprocessing = trained.info.postprocessing if trained else Postprocessing()
    if start.nms_threshold is not None:
        postprocessing = replace(postprocessing, nms_threshold=start.nms_threshold)
    return Origin(config, replace(preprocessing, size=size, max_size=max_size), postprocessing, trained,
                  start.backbone_weights)


def _read_weights(start: Start) -> Trained | None:
    if start.weights is None:
        return None
    model, info = read_any(start.weights)
    if not start.changes:
        return Trained(model, info)
    changed = build_model(replace(model.config, **start.changes))   # of the same tensors
    changed.load_state_dict(model.state_dict())
    return Trained(changed, info)
