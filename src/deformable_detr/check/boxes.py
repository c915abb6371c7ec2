"""Boxes that cannot be trained on, or are not what they should be."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings, Place
from deformable_detr.datasets.kinds import Fault

ROUNDING = 1.0              # pixels by which a box may leave its image without a warning: tools round
SMALLEST_IMAGE = 16         # pixels of a side; in a smaller one a box below a pixel need not be a fraction
SHARE_FRACTIONS = 0.01      # of a split's boxes; fewer may be slivers that cutting images into tiles has left
MOST_FRACTION = 2.0         # of a box in fractions that leaves its image
SHARE_ONE_UNIT = 0.5        # of fractions, from which on all of a split's boxes are taken to be in one unit

# Whether a split's boxes are two corners is decided by those that tell: two corners fit into their image, while a
# corner and a size leave it, or the reverse. Near the top left none may tell; but there second corners follow first
# ones, while the larger an object is, the nearer its corner must be to the top left.
LEAVING = 1.05              # times the side of an image, beyond which a box does not only leave it by sloppiness
MIN_CORNERS = 3             # boxes that tell
SHARE_CORNERS = 0.3         # of all boxes that would leave their images if they were no corners
SHARE_AGAINST = 1 / 3       # of those boxes, by which others may say the reverse: they have another fault
MIN_FOLLOWING = 10          # boxes that show whether second corners follow first ones
SHARE_NOT_FOLLOWING = 0.1   # of those boxes, by which others may say the reverse
FOLLOWING = 0.6             # correlation along both sides, in pixels and in shares of the image

Mask = Bool[np.ndarray, "T"]


@dataclass(frozen=True)
class BoxFaults:
    """Which objects have which fault; crowds have none. `usable` have area inside their image."""

    empty: Mask
    swapped: Mask
    outside: Mask
    over: Mask          # usable, and partly outside
    fractions: Mask     # usable, but meant as fractions of the image
    first_pixel: Mask   # usable, but perhaps meant as fractions
    usable: Mask
    corners: Mask       # meant as two corners; if any, all of the split are, but for those with another fault
    in_pixels: Float[np.ndarray, "T 4"]     # boxes as in the file, fractions multiplied by the image's sides

    @property
    def num_missed(self) -> int:
        """Objects left out of training, while the evaluation, which keeps to the file, counts them as missed."""
        return int((self.empty | self.swapped | self.outside).sum())


def faults_of_splits(splits: Mapping[str, Annotations]) -> dict[str, BoxFaults]:
    """The faults of every box; where one split's boxes are two corners, or those of all together, which may be few
    in each, those of others are too, if they fit."""
    found = {split: find_box_faults(annotations) for split, annotations in splits.items()}
    if not found or not (any(faults.corners.any() for faults in found.values())
                         or _are_corners_together(splits, found)):
        return found
    return {split: faults if faults.corners.any() else find_box_faults(splits[split], are_corners=True)
            for split, faults in found.items()}


def find_box_faults(annotations: Annotations, *, are_corners: bool = False) -> BoxFaults:
    """The faults of every box; `are_corners` says that two corners are expected, if nothing speaks against it."""
    corner, size, limit = annotations.boxes[:, :2], annotations.boxes[:, 2:], image_extents(annotations)
    boxes, thing = clipped_boxes(annotations).astype(np.float32), ~annotations.crowd
    swapped = thing & (size < 0).any(1)
    empty = thing & ~swapped & (size == 0).any(1)
    outside = thing & ~swapped & ~empty & (boxes[:, 2:] <= boxes[:, :2]).any(1)
    usable = thing & ~swapped & ~empty & ~outside
    over = usable & ((corner < -ROUNDING) | (corner + size > limit + ROUNDING)).any(1)
    whole = usable | annotations.crowd
    perhaps = whole & _perhaps_fractions(annotations)
    below_one = perhaps & (corner + size <= 1.01).all(1)
    if perhaps.sum() > SHARE_ONE_UNIT * whole.sum():
        below_one = whole & (np.abs(annotations.boxes) <= MOST_FRACTION).all(1)
    are_fractions = below_one.sum() > SHARE_FRACTIONS * whole.sum()
    fractions = below_one & are_fractions
    in_pixels = np.where(fractions[:, None], annotations.boxes * np.tile(limit, 2), annotations.boxes)
    corners = _are_corners(two_corners(annotations, in_pixels), in_pixels, limit, thing, known=are_corners)
    return BoxFaults(empty, swapped, outside, over, fractions, below_one & ~are_fractions, usable, corners, in_pixels)


def two_corners(annotations: Annotations, boxes: Float[np.ndarray, "T 4"]) -> Float[np.ndarray, "T 4"]:
    """The four numbers of the file, in pixels: YOLO's label files give centre and size, other formats a corner."""
    first = boxes[:, :2] + boxes[:, 2:] / 2 if annotations.is_centred else boxes[:, :2]
    return np.concatenate([first, boxes[:, 2:]], axis=1)


def clipped_boxes(annotations: Annotations) -> Float[np.ndarray, "T 4"]:
    """float64 xyxy in pixels, clipped to the image."""
    corner, size, limit = annotations.boxes[:, :2], annotations.boxes[:, 2:], image_extents(annotations)
    return np.concatenate([np.clip(corner, 0, limit), np.clip(corner + size, 0, limit)], axis=1)


def image_extents(annotations: Annotations) -> Float[np.ndarray, "T 2"]:
    """Width and height of the image of every object."""
    return annotations.images.sizes[:, ::-1].astype(np.float64)[annotations.image_index]


def report_boxes(annotations: Annotations, faults: BoxFaults, findings: Findings) -> None:
    """Report the boxes that are at fault."""
    found = {Fault.BOX_FRACTIONS: faults.fractions, Fault.BOX_EMPTY: faults.empty,
             Fault.BOX_SWAPPED: faults.swapped, Fault.BOX_FIRST_PIXEL: faults.first_pixel}
    if faults.corners.any():
        findings.add(Fault.BOX_CORNERS, Place(annotations.file), f"{faults.corners.sum()} of {len(annotations.boxes)} "
                     "boxes fit as two corners, while as sizes many leave their images, or grow with their distance "
                     f"from the top left; the first is {_describe(annotations, int(faults.corners.argmax()))}")
    else:
        found |= {Fault.BOX_OUTSIDE: faults.outside, Fault.BOX_OVER: faults.over}
    for kind, mask in found.items():
        report_rows(kind, annotations, mask, findings)


def report_rows(kind: Fault, annotations: Annotations, mask: Mask, findings: Findings) -> None:
    """Report the objects for which `mask` is True."""
    findings.add_all(kind, int(mask.sum()), (
        (annotations.place_of_object(row), _describe(annotations, row)) for row in map(int, np.flatnonzero(mask))))


def _are_corners_together(splits: Mapping[str, Annotations], found: Mapping[str, BoxFaults]) -> bool:
    """Whether the boxes of all splits, taken as one, are two corners."""
    pieces = [(two_corners(annotations, found[split].in_pixels), found[split].in_pixels, image_extents(annotations),
               ~annotations.crowd) for split, annotations in splits.items()]
    corners, boxes, limit, thing = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return bool(_are_corners(corners, boxes, limit, thing, known=False).any())


def _perhaps_fractions(annotations: Annotations) -> Mask:
    """Boxes of numbers from 0 to 1; but one of whole numbers is a slip of the hand."""
    limit = image_extents(annotations)
    return (((annotations.boxes >= 0) & (annotations.boxes <= 1.01)).all(1) & (annotations.boxes % 1 != 0).any(1)
            & (limit >= SMALLEST_IMAGE).all(1))


def _are_corners(corners: Float[np.ndarray, "T 4"], boxes: Float[np.ndarray, "T 4"],
                 limit: Float[np.ndarray, "T 2"], thing: Mask, *, known: bool) -> Mask:
    """Which boxes are meant as `corners`, if the split's are; both in pixels, `limit` is the images' extent.

    `known`: another split's are. Only boxes of one `thing` decide.
    """
    first, second, start, end = corners[:, :2], corners[:, 2:], boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    fit = np.asarray((second > first).all(1) & (second <= limit + ROUNDING).all(1) & (first >= -ROUNDING).all(1))
    inside = thing & (boxes[:, 2:] > 0).all(1) & (start >= -ROUNDING).all(1) & (end <= limit + ROUNDING).all(1)
    leaving = fit & thing & ((end > LEAVING * limit) | (start < (1 - LEAVING) * limit)).any(1)
    against, telling = (inside & ~fit).sum(), fit & thing
    if leaving.sum() >= max(MIN_CORNERS, SHARE_CORNERS * thing.sum()):
        return fit if against <= SHARE_AGAINST * leaving.sum() else np.zeros_like(fit)
    if against > (SHARE_AGAINST if known else SHARE_NOT_FOLLOWING) * telling.sum():
        return np.zeros_like(fit)
    if not known and telling.sum() < MIN_FOLLOWING:
        return np.zeros_like(fit)
    first, second, limit = first[telling], second[telling], limit[telling]
    follow = known or min(_follow(first, second), _follow(first / limit, second / limit)) > FOLLOWING
    return fit if follow else np.zeros_like(fit)


def _follow(first: Float[np.ndarray, "T 2"], second: Float[np.ndarray, "T 2"]) -> float:
    """The lower correlation of first and second corners along the two sides; 0 where either does not vary."""
    first, second = first - first.mean(0), second - second.mean(0)
    scale = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    return float(np.where(scale > 1e-9, (first * second).sum(0) / np.maximum(scale, 1e-9), 0).min())


def _describe(annotations: Annotations, row: int) -> str:
    x, y, width, height = annotations.boxes[row]
    image = annotations.images[int(annotations.image_index[row])]
    return (f"x {x:g}, y {y:g}, width {width:g}, height {height:g} of a {annotations.names[annotations.labels[row]]} "
            f"in {image.file_name} ({image.width} x {image.height})")
