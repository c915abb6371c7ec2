"""The objects to train on: boxes with area inside their image. Others are reported."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from deformable_detr.check.boxes import clipped_boxes, find_box_faults, report_boxes
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings


@dataclass(frozen=True)
class TrainingObjects:
    """The objects to train on, image by image."""

    boxes: Float[np.ndarray, "T 4"]     # float32: xyxy in pixels, clipped to the image
    labels: Int64[np.ndarray, "T"]
    starts: Int64[np.ndarray, "starts"]     # P + 1 of them: rows starts[i]:starts[i + 1] belong to image i
    num_missed: int                     # further ones that cannot be used: the evaluation counts them as missed


def training_objects(annotations: Annotations, findings: Findings) -> TrainingObjects:
    """The objects to train on, without crowds and boxes that cannot be used, which are reported."""
    faults = find_box_faults(annotations)
    report_boxes(annotations, faults, findings)
    rows = np.flatnonzero(faults.usable)
    rows = rows[np.argsort(annotations.image_index[rows], kind="stable")]
    starts = np.searchsorted(annotations.image_index[rows], np.arange(len(annotations.images) + 1))
    return TrainingObjects(clipped_boxes(annotations)[rows].astype(np.float32), annotations.labels[rows], starts,
                           faults.num_missed)
