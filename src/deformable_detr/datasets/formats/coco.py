"""A COCO annotation file. Its objects are read a few thousand at a time: quickly where none is at fault."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np

from deformable_detr.datasets.annotations import Annotations, ImageFolder, Objects
from deformable_detr.datasets.building import ObjectRecord, join, pack, with_possible_areas
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.source import LARGEST_NUMBER, check_class_name, is_box, is_number
from deformable_detr.datasets.image_list import ImageList, ImageRecord
from deformable_detr.datasets.kinds import Fault
from deformable_detr.documents import DocumentError, Entries, read_json_lists
from deformable_detr.text import is_unicode, quoted

READ_AT_ONCE = 2000     # objects; where one of them is at fault, they are read one by one
EXACT = 2**53           # smaller whole numbers are exact as floats

Item = TypeVar("Item")
Identity = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]
Number = Annotated[float, msgspec.Meta(gt=-EXACT, lt=EXACT)]
Entry = dict[str, Any]


class _SoundObject(msgspec.Struct, gc=False):
    """An object as nearly all are; others, at fault or not, are left to `read_object_entry`."""

    id: Identity
    image_id: Identity
    category_id: Identity
    bbox: tuple[Number, Number, Number, Number]
    area: Number | None = None
    iscrowd: bool | Literal[0, 1] = 0
    ignore: Literal[0] = 0


_SOUND_OBJECTS = msgspec.json.Decoder(list[_SoundObject])


def read_coco(file: Path, findings: Findings) -> Annotations:
    """The entries without fault, for images beside the file; the others are reported.

    Raises DataError where nothing can be read.
    """
    try:
        return _Reader(file, findings).annotations()
    except DocumentError as error:
        stop(Fault.ANNOTATION_FILE, Place(file, error.line), str(error))


class _Reader:
    """Reads the lists of one file; reports the entries at fault and leaves them out."""

    def __init__(self, file: Path, findings: Findings) -> None:
        self.file, self.findings = file, findings
        self.lists = _read_lists(file)

    def annotations(self) -> Annotations:
        categories = sorted(self.each("categories", "category", read_category_entry))
        categories = self.once("category id", categories, lambda category: category[0])
        names = dict(self.once("category name", categories, lambda category: category[1]))
        if not names:
            stop(Fault.ANNOTATION_FILE, Place(self.file), "categories: expected at least one, got none")
        images = self.once("image id", self.each("images", "image", read_image_entry), lambda image: image.id)
        if not images:
            stop(Fault.NO_IMAGES, Place(self.file), "images: expected at least one image, got none")
        objects = self.objects(names, [image.id for image in images])
        return with_possible_areas(Annotations(
            file=self.file, names=tuple(names.values()), category_ids=tuple(names), images=ImageList.of(images),
            store=ImageFolder(self.file.parent), **vars(objects)), self.findings)

    def each(self, key: str, kind: str, read: Callable[[Entry], Item], part: slice = slice(None)) -> list[Item]:
        """What `read`, which raises EntryError, makes of the entries of a list, or of a part of it."""
        items = []
        for position, entry in enumerate(self.lists[key][part], start=part.start or 0):
            try:
                items.append(read(check_entry(entry)))
            except EntryError as fault:
                is_named = isinstance(entry, dict) and "id" in entry
                name = f"{kind} {quoted(entry['id'])}" if is_named else f"{key}[{position}]"
                self.findings.add(fault.kind, Place(self.file, entry=name), fault.message)
        return items

    def once(self, what: str, items: Iterable[Item], key_of: Callable[[Item], int | str]) -> list[Item]:
        """The first item of each key."""
        first: dict[int | str, Item] = {}
        for item in items:
            if first.setdefault(key_of(item), item) is not item:
                self.findings.add(Fault.ID_TWICE, Place(self.file, entry=f"{what} {quoted(key_of(item))}"),
                                  "expected once, got it twice")
        return list(first.values())

    def objects(self, category_ids: Iterable[int], image_ids: Iterable[int]) -> Objects:
        """The objects of these classes and images; those of entries that were left out are not reported again."""
        class_of = {identity: index for index, identity in enumerate(category_ids)}
        index_of = {identity: index for index, identity in enumerate(image_ids)}
        lost_images, lost_classes = self._lost("images", index_of), self._lost("categories", class_of)

        def read(entry: Entry) -> ObjectRecord | None:
            image, category = read_id(entry, "image_id"), read_id(entry, "category_id")
            if image in lost_images or category in lost_classes:
                return None
            record = read_object_entry(entry, class_of, index_of.get(image))
            report_ignored(entry, Place(self.file, entry=f"annotation {record.id}"), self.findings)
            return record

        pieces = []
        for start in range(0, len(self.lists["annotations"]), READ_AT_ONCE):
            part = slice(start, start + READ_AT_ONCE)
            sound = _sound_objects(self.lists["annotations"][part], class_of, index_of)
            pieces.append(sound or pack([
                record for record in self.each("annotations", "annotation", read, part) if record]))
        objects = join(pieces)
        ids, first, counts = np.unique(objects.ids, return_index=True, return_counts=True)
        twice = ids[counts > 1][first[counts > 1].argsort()].tolist()
        self.findings.add_all(Fault.ANNOTATION_ID_TWICE, len(twice), (
            (Place(self.file, entry=f"annotation {identity}"), "expected once, got it again") for identity in twice))
        return objects

    def _lost(self, key: str, kept: Mapping[int, int]) -> set[int]:
        """The ids of the entries of a list that were left out."""
        if len(kept) == len(self.lists[key]):
            return set()
        given = {entry["id"] for entry in self.lists[key] if isinstance(entry, dict) and type(entry.get("id")) is int}
        return given - set(kept)


def _read_lists(file: Path) -> dict[str, Any]:
    """The file's JSON object with its three lists. Raises DocumentError."""
    content = read_json_lists(file)
    expected = "not a COCO annotation file: expected an object with the lists images, annotations and categories"
    if not isinstance(content, dict):
        stop(Fault.ANNOTATION_FILE, Place(file), f"{expected}, got {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), (list, Entries)):
            got = type(content[key]).__name__ if key in content else "nothing"
            stop(Fault.ANNOTATION_FILE, Place(file), f"{expected}, got {got} for {key}")
    return content


def _sound_objects(entries: object, class_of: Mapping[int, int], index_of: Mapping[int, int]) -> Objects | None:
    """The objects of entries; None where one may be at fault. The maps give class and image index by id."""
    found = entries.typed(_SOUND_OBJECTS) if isinstance(entries, Entries) else None
    if found is None:
        return None
    image_index = np.array([index_of.get(entry.image_id, -1) for entry in found], np.int64)
    labels = np.array([class_of.get(entry.category_id, -1) for entry in found], np.int64)
    if (image_index < 0).any() or (labels < 0).any():
        return None
    boxes = np.fromiter(chain.from_iterable(entry.bbox for entry in found), np.float64, 4 * len(found)).reshape(-1, 4)
    areas = [abs(entry.bbox[2] * entry.bbox[3]) if entry.area is None else entry.area for entry in found]
    return Objects(
        ids=np.array([entry.id for entry in found], np.int64), image_index=image_index, labels=labels, boxes=boxes,
        areas=np.array(areas, np.float64), crowd=np.array([entry.iscrowd for entry in found], bool))


def check_entry(entry: Any) -> Entry:
    """The entry. Raises EntryError where it is no JSON object."""
    if not isinstance(entry, dict):
        raise EntryError(Fault.ENTRY, f"expected an object, got {quoted(entry)}")
    return entry


def read_category_entry(entry: Entry) -> tuple[int, str]:
    """Id and name. Raises EntryError."""
    name = check_class_name(entry.get("name"))
    return read_id(entry, "id"), name


def read_image_entry(entry: Entry) -> ImageRecord:
    """Raises EntryError."""
    return ImageRecord(read_id(entry, "id"), _read_file_name(entry), _read_side(entry, "width"),
                       _read_side(entry, "height"))


def read_object_entry(entry: Entry, class_of: Mapping[int, int], image_index: int | None) -> ObjectRecord:
    """The object of an image, None where that is not listed; `class_of` maps category ids to class indices.

    Raises EntryError.
    """
    category = read_id(entry, "category_id")
    if image_index is None:
        raise _fault(entry, "image_id", "the id of a listed image", Fault.PICTURE_UNKNOWN)
    if category not in class_of:
        raise _fault(entry, "category_id", f"one of the category ids {quoted(list(class_of))}",
                     Fault.CLASS_UNKNOWN)
    if not is_box(entry.get("bbox")):
        raise _fault(entry, "bbox", "four numbers: x, y, width, height")
    area, crowd, ignored = entry.get("area"), _read_flag(entry, "iscrowd"), _read_flag(entry, "ignore")
    if area is not None and not is_number(area):
        raise _fault(entry, "area", "a number")
    return ObjectRecord(read_id(entry, "id"), image_index, class_of[category], entry["bbox"], area, crowd or ignored)


def report_ignored(entry: Entry, place: Place, findings: Findings) -> None:
    """Report an object, read without fault, that is marked to be ignored but no crowd."""
    if _read_flag(entry, "ignore") and not _read_flag(entry, "iscrowd"):
        findings.add(Fault.OBJECT_IGNORED, place, "ignore: 1 is taken as iscrowd: 1")


def _read_flag(entry: Entry, key: str) -> bool:
    value = entry.get(key, 0)
    if value not in (0, 1):
        raise _fault(entry, key, "0 or 1")
    return bool(value)


def read_id(entry: Entry, key: str) -> int:
    """The id under a key. Raises EntryError for anything else."""
    value = entry.get(key)
    if type(value) is str and value.isdecimal() and len(value) < 20:   # some tools write numbers as text
        value = int(value)
    if type(value) is not int or not 0 <= value <= LARGEST_NUMBER:
        raise _fault(entry, key, "a whole number")
    return value


def _read_side(entry: Entry, key: str) -> int:
    value = entry.get(key)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 < value <= LARGEST_NUMBER:
        raise _fault(entry, key, "a positive whole number of pixels")
    return value


def _read_file_name(entry: Entry) -> str:
    value = entry.get("file_name")
    if type(value) is not str or not value.strip() or "\0" in value or not is_unicode(value):
        raise _fault(entry, "file_name", "a text")
    return value


def _fault(entry: Entry, key: str, expected: str, kind: Fault = Fault.ENTRY) -> EntryError:
    got = quoted(entry[key]) if key in entry else "nothing"
    return EntryError(kind, f"{key}: expected {expected}, got {got}")


def object_entries(objects: Any) -> list[dict[str, Any]]:
    """The objects of a row or line one by one, if they are a mapping of lists too; short lists are filled with None."""
    if isinstance(objects, dict):
        columns = {name: values for name, values in objects.items() if isinstance(values, list)}
        count = max(map(len, columns.values()), default=0)
        return [{name: values[index] if index < len(values) else None for name, values in columns.items()}
                for index in range(count)]
    return [entry for entry in objects or [] if isinstance(entry, dict)]
