"""The objects of a COCO annotation file, a piece of the list at a time: quickly where nothing is wrong with it."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int64

from deformable_detr.datasets.formats.coco_entries import Row
from deformable_detr.datasets.formats.source import LARGEST
from deformable_detr.datasets.json_lists import Entries

EXACT = 2**53   # whole numbers below are the same as floats


class Objects(NamedTuple):
    """T objects as columns; what they are, `Annotations` says."""

    ids: Int64[np.ndarray, "T"]
    image_index: Int64[np.ndarray, "T"]
    labels: Int64[np.ndarray, "T"]
    boxes: Float[np.ndarray, "T 4"]
    areas: Float[np.ndarray, "T"]
    crowd: Bool[np.ndarray, "T"]


Identity = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
Number = Annotated[float, msgspec.Meta(gt=-EXACT, lt=EXACT)]


class _Sound(msgspec.Struct, gc=False):
    """An entry as nearly all are; what is neither this nor at fault is left to `coco_entries` too."""

    id: Identity
    image_id: Identity
    category_id: Identity
    bbox: tuple[Number, Number, Number, Number]
    area: Number | None = None
    iscrowd: bool | Literal[0, 1] = 0


_SOUND = msgspec.json.Decoder(list[_Sound])


def sound_objects(entries: Sequence[object], class_of: Mapping[int, int], index_of: Mapping[int, int],
                  ) -> Objects | None:
    """What the entries say, by the indices of their classes' and images' ids; None where one may be at fault."""
    found = entries.typed(_SOUND) if isinstance(entries, Entries) else None
    if found is None:
        return None
    image_index = np.array([index_of.get(entry.image_id, -1) for entry in found], np.int64)
    labels = np.array([class_of.get(entry.category_id, -1) for entry in found], np.int64)
    if (image_index < 0).any() or (labels < 0).any():
        return None
    boxes = np.fromiter(chain.from_iterable(entry.bbox for entry in found), np.float64, 4 * len(found)).reshape(-1, 4)
    areas = [entry.bbox[2] * entry.bbox[3] if entry.area is None else entry.area for entry in found]
    return Objects(np.array([entry.id for entry in found], np.int64), image_index, labels, boxes,
                   np.array(areas, np.float64), np.array([entry.iscrowd for entry in found], bool))


def objects_of(rows: Sequence[Row]) -> Objects:
    """Objects that were read one by one."""
    ids, image_index, labels, boxes, areas, crowd = zip(*rows, strict=True) if rows else ((),) * 6
    return Objects(np.array(ids, np.int64), np.array(image_index, np.int64), np.array(labels, np.int64),
                   np.array(boxes, np.float64).reshape(-1, 4), np.array(areas, np.float64), np.array(crowd, bool))


def joined(pieces: Sequence[Objects]) -> Objects:
    """All of them in one."""
    return Objects(*map(np.concatenate, zip(objects_of([]), *pieces, strict=True)))
