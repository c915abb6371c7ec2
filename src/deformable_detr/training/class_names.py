"""The classes of a training: which the validation data may have, and which augmentation would confuse."""

import logging
from collections.abc import Sequence

import numpy as np

from deformable_detr.datasets.sides import direction_names, left_right_names, up_down_names
from deformable_detr.evaluation import match_names
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.text import quoted
from deformable_detr.training.recipe import Flip

logger = logging.getLogger(__name__)


def warn_of_mirrored_classes(names: Sequence[str], flip: Flip, *, quarter_turns: bool) -> None:
    """Log which classes depend on a direction that the augmentation changes: mirrored, "left" is "right"."""
    confused = {
        f"flip '{flip}' mirrors training images left to right":
            left_right_names(names) if flip in ("horizontal", "both") else [],
        f"flip '{flip}' turns training images upside down":
            up_down_names(names) if flip in ("vertical", "both") else [],
        "quarter_turns rotates training images": direction_names(names) if quarter_turns else [],
    }
    for what, found in confused.items():
        if found:
            logger.warning("%s, but class names speak of directions: %s; if these classes differ by it, switch it off",
                           what, _listed(found))


def check_can_be_measured(names: Sequence[str], validation_data: DetectionDataset) -> None:
    """Raise ValueError if the validation data cannot measure a model of these classes.

    That is, if it lists none of them, or has objects of classes that the model will not know.
    """
    match = match_names(names, validation_data.names)
    counts = np.bincount(validation_data.annotations.labels, minlength=len(validation_data.names))
    unknown = [name for name, count in zip(validation_data.names, counts, strict=True)
               if count and name in match.only_in_data]
    if unknown:
        raise ValueError(f"{validation_data.annotations.file}: expected only objects of classes that the training data "
                         f"lists, got objects of {_listed(unknown)}")


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(map(quoted, names[:most])) + (", ..." if len(names) > most else "")
