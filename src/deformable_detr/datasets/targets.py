"""What of the annotations is trained on: boxes with area inside their image. What is not is reported."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings, Place
from deformable_detr.datasets.kinds import Kind

ROUNDING = 1.0              # pixels by which a box may leave its image without a warning: tools round
SMALLEST_IMAGE = 16       # pixels of a side; in a smaller one a box below a pixel need not be a fraction
SHARE_FRACTIONS = 0.01      # of a split's boxes; fewer may be slivers that cutting images into tiles has left
MIN_BOXES = 10              # that tell whether all of them are corners
SHARE_OUTSIDE = 0.3         # of boxes that would leave their images if they were no corners


@dataclass(frozen=True)
class Targets:
    """The objects to train on, image by image."""

    boxes: Float[np.ndarray, "T 4"]     # float32: xyxy in pixels, clipped to the image
    labels: Int64[np.ndarray, "T"]
    starts: Int64[np.ndarray, "starts"]     # P + 1 of them: rows starts[i]:starts[i + 1] belong to image i


@dataclass(frozen=True)
class BoxFaults:
    """Which objects have which fault; crowds have none. `usable` have area inside their image."""

    empty: Bool[np.ndarray, "T"]
    swapped: Bool[np.ndarray, "T"]
    outside: Bool[np.ndarray, "T"]
    over: Bool[np.ndarray, "T"]         # usable, and partly outside
    fractions: Bool[np.ndarray, "T"]    # usable, but meant as fractions of the image
    first_pixel: Bool[np.ndarray, "T"]  # usable, and perhaps meant so
    usable: Bool[np.ndarray, "T"]
    are_corners: bool                   # all of them: x1, y1 instead of width, height


def training_targets(annotations: Annotations, findings: Findings) -> Targets:
    """The objects to train on, without crowds and boxes that cannot be used, which are reported."""
    faults = find_box_faults(annotations)
    report_boxes(annotations, faults, findings)
    rows = np.flatnonzero(faults.usable)
    rows = rows[np.argsort(annotations.image_index[rows], kind="stable")]
    starts = np.searchsorted(annotations.image_index[rows], np.arange(len(annotations.images) + 1))
    return Targets(clipped_boxes(annotations)[rows].astype(np.float32), annotations.labels[rows], starts)


def clipped_boxes(annotations: Annotations) -> Float[np.ndarray, "T 4"]:
    """float64 xyxy in pixels, clipped to the image."""
    corner, size, limit = annotations.boxes[:, :2], annotations.boxes[:, 2:], image_extents(annotations)
    return np.concatenate([np.clip(corner, 0, limit), np.clip(corner + size, 0, limit)], axis=1)


def image_extents(annotations: Annotations) -> Float[np.ndarray, "T 2"]:
    """Width and height of the image of every object."""
    return annotations.images.sizes[:, ::-1].astype(np.float64)[annotations.image_index]


def find_box_faults(annotations: Annotations) -> BoxFaults:
    """Look at every box."""
    corner, size, limit = annotations.boxes[:, :2], annotations.boxes[:, 2:], image_extents(annotations)
    boxes, thing = clipped_boxes(annotations).astype(np.float32), ~annotations.crowd
    swapped = thing & (size < 0).any(1)
    empty = thing & ~swapped & (size == 0).any(1)
    outside = thing & ~swapped & ~empty & (boxes[:, 2:] <= boxes[:, :2]).any(1)
    usable = thing & ~swapped & ~empty & ~outside
    over = usable & ((corner < -ROUNDING) | (corner + size > limit + ROUNDING)).any(1)
    # A box of whole numbers in the first pixel is a slip of the hand, not a fraction.
    below_one = (usable & (corner >= 0).all(1) & (corner + size <= 1.01).all(1)
                 & (annotations.boxes % 1 != 0).any(1) & (limit >= SMALLEST_IMAGE).all(1))
    are_fractions = below_one.sum() > SHARE_FRACTIONS * usable.sum()
    leaving = thing & (corner + size > limit + ROUNDING).any(1)
    would_be_corners = (size > corner).all(1) & (size <= limit + ROUNDING).all(1) & (corner >= -ROUNDING).all(1)
    are_corners = bool(thing.sum() >= MIN_BOXES and leaving.sum() > SHARE_OUTSIDE * thing.sum()
                       and (would_be_corners | ~thing).all())
    return BoxFaults(empty, swapped, outside, over, below_one & are_fractions, below_one & ~are_fractions, usable,
                     are_corners)


def report_boxes(annotations: Annotations, faults: BoxFaults, findings: Findings) -> None:
    """Report the boxes that are at fault."""
    if faults.are_corners:
        row = int((annotations.boxes[:, 2:] > 0).all(1).argmax())
        findings.add(Kind.BOX_CORNERS, Place(annotations.file), f"all {len(annotations.boxes)} boxes would fit as two "
                     f"corners, as sizes many leave their images; {_message(annotations, row)}")
    found = {Kind.BOX_FRACTIONS: faults.fractions, Kind.BOX_EMPTY: faults.empty, Kind.BOX_SWAPPED: faults.swapped,
             Kind.BOX_FIRST_PIXEL: faults.first_pixel}
    if not faults.are_corners:
        found |= {Kind.BOX_OUTSIDE: faults.outside, Kind.BOX_OVER: faults.over}
    for kind, mask in found.items():
        report_rows(kind, annotations, mask, findings)


def report_rows(kind: Kind, annotations: Annotations, mask: Bool[np.ndarray, "T"], findings: Findings) -> None:
    """Report the objects for which `mask` is True."""
    findings.add_all(kind, int(mask.sum()), (
        (annotations.place_of_object(row), _message(annotations, row)) for row in map(int, np.flatnonzero(mask))))


def _message(annotations: Annotations, row: int) -> str:
    x, y, width, height = annotations.boxes[row]
    image = annotations.images[int(annotations.image_index[row])]
    return (f"x {x:g}, y {y:g}, width {width:g}, height {height:g} of a {annotations.names[annotations.labels[row]]} "
            f"in {image.file_name} ({image.width} x {image.height})")
