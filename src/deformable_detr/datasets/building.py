"""How `Annotations` are put together from images and objects that are read one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deformable_detr.datasets.annotations import Annotations, ImageStore, Objects
from deformable_detr.datasets.findings import EntryError, Findings
from deformable_detr.datasets.image_list import ImageList, ImageRecord
from deformable_detr.datasets.kinds import Fault
from deformable_detr.images import ImageError, open_image, upright_size

MAX_IMAGE_BYTES = 2**29     # more than the most pixels that are read take uncompressed
ROUNDING = 1.0                # pixels by which the sides of a mask may exceed those of its box
PACKED_AT_ONCE = 4096    # objects; as Python's objects they take ten times the memory of arrays


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """One object before it is packed; the fields are the columns of `Objects`."""

    id: int
    image_index: int
    label: int
    box: Sequence[float]            # x, y, width, height in pixels
    area: float | None = None       # None: that of the box
    crowd: bool = False             # or marked to be ignored
    line: int | None = None


def pack(records: Sequence[ObjectRecord]) -> Objects:
    """Objects as columns; either all of them have a line, or none has."""
    areas = [abs(record.box[2] * record.box[3]) if record.area is None else record.area for record in records]
    lines = [record.line for record in records if record.line is not None]
    return Objects(
        ids=np.array([record.id for record in records], np.int64),
        image_index=np.array([record.image_index for record in records], np.int64),
        labels=np.array([record.label for record in records], np.int64),
        boxes=np.array([record.box for record in records], np.float64).reshape(-1, 4),
        areas=np.array(areas, np.float64), crowd=np.array([record.crowd for record in records], bool),
        lines=np.array(lines, np.int64) if lines else None)


def join(pieces: Sequence[Objects]) -> Objects:
    """All of them, one after another; either all have lines, or none has."""
    columns: list[dict[str, Any]] = [vars(piece) for piece in pieces or [pack([])]]
    joined: dict[str, Any] = {name: np.concatenate([column[name] for column in columns])
                              for name, values in columns[0].items() if values is not None}
    return Objects(**joined)


class AnnotationBuilder:
    """Gathers images, each followed by its objects; `names` are those of the classes, by category id."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = {identity: names[identity] for identity in sorted(names)}
        self.class_of = {identity: index for index, identity in enumerate(self._names)}     # index by category id
        self._images: list[ImageRecord] = []
        self._sources: list[Path] = []
        self._records: list[ObjectRecord] = []
        self._pieces: list[Objects] = []
        self._num_packed = 0

    @property
    def num_images(self) -> int:
        """How many there are so far."""
        return len(self._images)

    def start(self, image: ImageRecord, source: Path) -> None:
        """Begin an image, whose label file is `source`; the objects that follow belong to it."""
        self._images.append(image)
        self._sources.append(source)

    def add(self, label: int, box: Sequence[float], *, area: float | None = None, crowd: bool = False,
            line: int | None = None, identity: int | None = None) -> None:
        """Add an object, as `ObjectRecord` describes it, by default numbered from 1."""
        number = self._num_packed + len(self._records) + 1 if identity is None else identity
        self._records.append(ObjectRecord(number, len(self._images) - 1, label, box, area, crowd, line))
        if len(self._records) == PACKED_AT_ONCE:
            self._pack()

    def annotations(self, file: Path, store: ImageStore) -> Annotations:
        """All that was gathered."""
        if self._records:
            self._pack()
        return Annotations(file=file, names=tuple(self._names.values()), category_ids=tuple(self._names),
                           images=ImageList.of(self._images), store=store, sources=tuple(self._sources),
                           **vars(join(self._pieces)))

    def _pack(self) -> None:
        self._pieces.append(pack(self._records))
        self._num_packed += len(self._records)
        self._records = []


def with_possible_areas(annotations: Annotations, findings: Findings) -> Annotations:
    """The annotations with the box's area where the file's is not positive, or larger; these are reported."""
    sides, areas = np.abs(annotations.boxes[:, 2:]), annotations.areas
    wrong = (areas < 0) | ((sides > 0).all(1) & ((areas == 0) | (areas > (sides + ROUNDING).prod(1))))
    if not wrong.any():
        return annotations
    rows = np.flatnonzero(wrong & (annotations.boxes[:, 2:] > 0).all(1)).tolist()    # other boxes are faults themselves
    findings.add_all(Fault.OBJECT_AREA, len(rows), (
        (annotations.place_of_object(row), f"area: {areas[row]:g}, while the box has {sides[row].prod():g}")
        for row in rows))
    return replace(annotations, areas=np.where(wrong, sides.prod(1), areas))


def check_image_size(size: int) -> None:
    """Raise EntryError for an image in a table or archive of more bytes than are read into memory."""
    if size > MAX_IMAGE_BYTES:
        raise EntryError(Fault.PICTURE_UNREADABLE, f"more than {MAX_IMAGE_BYTES:,} bytes")


def measured(identity: int, name: str, source: Path | bytes) -> ImageRecord:
    """The record of an image whose annotations give no size: upright. Raises EntryError where it cannot be read."""
    try:
        with open_image(source) as opened:
            height, width = upright_size(opened)
    except ImageError as error:
        raise EntryError(Fault.PICTURE_UNREADABLE, error.reason_for(source)) from error
    return ImageRecord(identity, name, width, height)
