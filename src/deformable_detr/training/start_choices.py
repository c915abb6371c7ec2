"""What a training starts from where the user leaves it open: the packaged detector, or one of its size."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.training.defaults import SIZE_STEP, default_size, find_machine, typical_side
from deformable_detr.training.start import Start
from deformable_detr.weights.sources import DEMO

NUM_QUERIES = 100
SMALL_MODEL: dict[str, Any] = {"width": 128, "num_encoder_layers": 2, "num_decoder_layers": 3, "ffn_width": 512,
                               "dropout": 0.0}     # the packaged detector's
NMS_THRESHOLD = 0.7


@dataclass(frozen=True, slots=True)
class Choice:
    """The value of a setting, and the reason for it."""

    value: Any
    reason: str


def choose_start(start: Start, annotations: Annotations) -> tuple[Start, dict[str, Choice]]:
    """The start with what it leaves open, and what was chosen for that.

    Where nothing is asked, it is the packaged detector. Where a backbone or a field of the model is asked, on a CPU it
    is a model of the packaged detector's size.
    """
    if start.weights:
        return start, {}
    chosen = {} if start.size else {"size": _choose_size(annotations)}
    if start.is_open:
        chosen["weights"] = Choice(DEMO, "the packaged detector, which has learned to find things")
        return replace(start, **{name: choice.value for name, choice in chosen.items()}), chosen
    fields = _choose_fields(start.changes, annotations) if find_machine() == "cpu" else {}
    if fields and start.nms_threshold is None:
        chosen["nms_threshold"] = Choice(NMS_THRESHOLD, "after a short training objects are boxed twice")
    changes = {**{name: choice.value for name, choice in fields.items()}, **start.changes}
    return replace(start, changes=changes, **{name: choice.value for name, choice in chosen.items()}), chosen | fields


def _choose_size(annotations: Annotations) -> Choice:
    typical, size = typical_side(annotations.images), default_size(annotations.images)
    limit = f"; larger ones take long on a {find_machine().upper()}" if size < typical - SIZE_STEP else ""
    return Choice(size, f"half of the images have a short side of {typical} or more{limit}")


def _choose_fields(given: Mapping[str, Any], annotations: Annotations) -> dict[str, Choice]:
    """The fields of the model that are not given."""
    most = int(np.bincount(annotations.image_index[~annotations.crowd], minlength=1).max())
    fields = {name: Choice(value, "as the packaged detector, which trains on a CPU in hours")
              for name, value in SMALL_MODEL.items()}
    fields["num_queries"] = Choice(max(NUM_QUERIES, 2 * most), f"the fullest image has {most} objects")
    if given.get("refine", True) and given.get("two_stage", True):
        fields["mixed_queries"] = Choice(True, "learns sooner, in short trainings")
        fields["look_forward_twice"] = Choice(True, "learns sooner, in short trainings")
    return {name: choice for name, choice in fields.items() if name not in given}
