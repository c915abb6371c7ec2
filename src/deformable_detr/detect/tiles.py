"""Overlapping windows of large images, so that small objects are large enough to be found."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int64

from deformable_detr.detections import Detections
from deformable_detr.structures import ImageSize

OVERLAP = 0.2       # of a window's side, by default
SMALLEST = 32       # pixels of a window's side
CUT = 2.0           # a box that ends this near to a window's inner edge, in pixels, may be a part of an object
SAME = 0.5          # boxes of one class are of one object above this IoU; parts, above this share inside of the other
MOST = 3000         # boxes that are compared, the best: their number would otherwise grow with the image

Window = tuple[int, int, int, int]      # left, top, right, bottom, in pixels


@dataclass(frozen=True)
class Tiling:
    """Square windows of `size` pixels, each of which shares at least `overlap` of its side with the next.

    Raises ValueError for windows that are too small or do not move on.
    """

    size: int
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        if self.size < SMALLEST:
            raise ValueError(f"tiles: expected windows of at least {SMALLEST} pixels, got {self.size}")
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"tile overlap: expected a share from 0 to 0.9 of a window's side, got {self.overlap}")

    def windows(self, image_size: ImageSize) -> list[Window]:
        """The windows of an image, all of one size; none for an image that fits into one."""
        height, width = image_size
        columns, rows = self._starts(width), self._starts(height)
        if len(columns) == len(rows) == 1:
            return []
        return [(left, top, min(left + self.size, width), min(top + self.size, height))
                for top in rows for left in columns]

    def _starts(self, length: int) -> list[int]:
        """Evenly spread, so that the last window ends where the image does."""
        rest = max(0, length - self.size)
        steps = -(-rest // max(1, int(self.size * (1 - self.overlap))))
        return [round(rest * step / steps) for step in range(steps + 1)] if steps else [0]


Tile = bool | int | Tiling | None


def tiling_of(tile: Tile, usual_size: int) -> Tiling | None:
    """Windows of the usual size for True, of this size for a number, and none for False and None."""
    if tile is None or isinstance(tile, Tiling):
        return tile
    if isinstance(tile, bool):
        return Tiling(usual_size) if tile else None
    return Tiling(tile)


def merged(whole: Detections, windows: Sequence[Window], found: Sequence[Detections], top_k: int) -> Detections:
    """The `top_k` best detections in an image, of those in the whole image and of those in its windows.

    Of boxes of one class that are of one object the best remains, but one that a window's edge may have cut only where
    there is no whole one. Queries belong to a window's own run and are left out.
    """
    moved = [each.boxes + np.array([left, top, left, top], np.float32)
             for (left, top, _, _), each in zip(windows, found, strict=True)]
    parts = [whole, *found]
    boxes = np.concatenate([whole.boxes, *moved])
    scores, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "labels"))
    is_cut = np.concatenate([np.zeros(len(whole), bool),
                             *(_is_cut(box, window, whole.image_size) for box, window in zip(moved, windows,
                                                                                             strict=True))])
    names = [name for part in parts for name in part.names]
    kept = _distinct(boxes, scores, labels, is_cut)
    kept = kept[np.argsort(-scores[kept], kind="stable")][:top_k]
    return replace(whole, boxes=boxes[kept], scores=scores[kept], labels=labels[kept],
                   names=[names[index] for index in kept], queries=None)


def _is_cut(boxes: Float[np.ndarray, "n 4"], window: Window, image_size: ImageSize) -> Bool[np.ndarray, "n"]:
    """Boxes that end at an edge of the window that is no edge of the image."""
    left, top, right, bottom = window
    height, width = image_size
    return ((boxes[:, 0] < left + CUT) & (left > 0) | (boxes[:, 1] < top + CUT) & (top > 0)
            | (boxes[:, 2] > right - CUT) & (right < width) | (boxes[:, 3] > bottom - CUT) & (bottom < height))


def _distinct(boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, "n"], labels: Int64[np.ndarray, "n"],
              is_cut: Bool[np.ndarray, "n"]) -> Int64[np.ndarray, "kept"]:
    """One box for each object: whole boxes before cut ones, the best first."""
    best = np.argsort(-scores, kind="stable")[:MOST]
    waiting = best[np.argsort(is_cut[best], kind="stable")]
    kept = []
    while len(waiting):
        first, waiting = waiting[0], waiting[1:]
        kept.append(first)
        shared, of_both, of_other = _overlaps(boxes[first], boxes[waiting])
        is_same = (shared > SAME * of_both) | is_cut[waiting] & (shared > SAME * of_other)
        waiting = waiting[~(is_same & (labels[waiting] == labels[first]))]
    return np.array(kept, np.int64)


def _overlaps(box: Float[np.ndarray, "4"], others: Float[np.ndarray, "n 4"]) -> tuple[
        Float[np.ndarray, "n"], Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """The area that a box shares with each of the others, that of both together, and that of the other."""
    corners = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.maximum(corners[1] - corners[0], 0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return shared, (box[2:] - box[:2]).prod() + areas - shared, areas
