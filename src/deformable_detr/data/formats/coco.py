"""A COCO annotation file, checked entry by entry."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from deformable_detr.data.annotations import Annotations, Picture, PictureFolder
from deformable_detr.data.documents import DocumentError, read_json
from deformable_detr.data.findings import EntryError, Findings, Place, quoted, stop
from deformable_detr.data.formats.source import LARGEST, is_number
from deformable_detr.data.kinds import Kind
from deformable_detr.data.layout import CONTROL_CHARACTER, is_unicode

Entry = dict[str, Any]
Row = tuple[int, int, int, list[float], float, bool]    # id, picture index, class index, box, area, crowd
Item = TypeVar("Item")


def read_annotations(file: Path) -> Annotations:
    """The checked content of a COCO annotation file, for pictures beside it.

    Raises DataError for a file that is not there, not JSON or not COCO, and names the first entry at fault.
    """
    return read_coco(file, Findings(strict=True))


def read_coco(file: Path, findings: Findings) -> Annotations:
    """The entries without fault; the others are reported. Raises DataError where nothing is left to read."""
    reader = _Reader(file, findings)
    categories = sorted(reader.each("categories", "category", _read_category))
    categories = reader.once("category id", categories, lambda category: category[0])
    categories = reader.once("category name", categories, lambda category: category[1])
    if not categories:
        stop(Kind.ANNOTATION_FILE, Place(file), "categories: expected at least one, got none")
    pictures = reader.each("images", "picture", _read_picture)
    pictures = reader.once("picture id", pictures, lambda picture: picture.id)
    if not pictures:
        stop(Kind.NO_PICTURES, Place(file), "images: expected at least one picture, got none")
    category_ids = tuple(identity for identity, _ in categories)
    rows = reader.objects(category_ids, [picture.id for picture in pictures])
    ids, picture_index, labels, boxes, areas, crowd = zip(*rows, strict=True) if rows else ((),) * 6
    return Annotations(
        file, tuple(name for _, name in categories), category_ids, tuple(pictures),
        np.array(ids, np.int64), np.array(picture_index, np.int64), np.array(labels, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4), np.array(areas, np.float64), np.array(crowd, bool),
        PictureFolder(file.parent))


class _Reader:
    """Reads the lists of one file; reports the entries at fault and leaves them out."""

    def __init__(self, file: Path, findings: Findings) -> None:
        self.file, self.findings = file, findings
        self.lists = _read_lists(file)

    def each(self, key: str, kind: str, read: Callable[[Entry], Item]) -> list[Item]:
        """What `read` makes of the entries of a list; it raises EntryError for those that are none."""
        items = []
        for position, entry in enumerate(self.lists[key]):
            try:
                if not isinstance(entry, dict):
                    raise EntryError(Kind.ENTRY, f"expected an object, got {quoted(entry)}")
                items.append(read(entry))
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
                self.findings.add(Kind.ID_TWICE, Place(self.file, entry=f"{what} {quoted(key_of(item))}"),
                                  "expected once, got it twice")
        return list(first.values())

    def objects(self, category_ids: Iterable[int], picture_ids: Iterable[int]) -> list[Row]:
        """The objects of these classes and pictures. Entries that are left out take theirs along silently."""
        class_of = {identity: index for index, identity in enumerate(category_ids)}
        index_of = {identity: index for index, identity in enumerate(picture_ids)}
        lost_pictures, lost_classes = self._ids("images") - set(index_of), self._ids("categories") - set(class_of)

        def read(entry: Entry) -> Row | None:
            picture, category = _identity(entry, "image_id"), _identity(entry, "category_id")
            if picture in lost_pictures or category in lost_classes:
                return None
            return _read_object(entry, class_of.get(category), index_of.get(picture), list(class_of))

        rows = [row for row in self.each("annotations", "annotation", read) if row]
        twice = [identity for identity, count in Counter(row[0] for row in rows).items() if count > 1]
        self.findings.add_all(Kind.ANNOTATION_ID_TWICE, len(twice), (
            (Place(self.file, entry=f"annotation {identity}"), "expected once, got it again") for identity in twice))
        return rows

    def _ids(self, key: str) -> set[int]:
        """The ids that a list gives, at fault or not."""
        return {entry["id"] for entry in self.lists[key] if isinstance(entry, dict) and type(entry.get("id")) is int}


def _read_lists(file: Path) -> dict[str, Any]:
    """The file's JSON object with its three lists."""
    try:
        content = read_json(file)
    except DocumentError as error:
        stop(Kind.ANNOTATION_FILE, Place(file, error.line), str(error))
    expected = "not a COCO annotation file: expected an object with the lists images, annotations and categories"
    if not isinstance(content, dict):
        stop(Kind.ANNOTATION_FILE, Place(file), f"{expected}, got {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            got = type(content[key]).__name__ if key in content else "nothing"
            stop(Kind.ANNOTATION_FILE, Place(file), f"{expected}, got {got} for {key}")
    return content


def _read_category(entry: Entry) -> tuple[int, str]:
    name = _text(entry, "name")
    if CONTROL_CHARACTER.search(name):
        raise EntryError(Kind.NAME_REFUSED, f"name: expected no control characters, got {quoted(name)}")
    return _identity(entry, "id"), name


def _read_picture(entry: Entry) -> Picture:
    return Picture(_identity(entry, "id"), _text(entry, "file_name"), _extent(entry, "width"),
                   _extent(entry, "height"))


def _read_object(entry: Entry, label: int | None, picture: int | None, category_ids: list[int]) -> Row:
    if picture is None:
        raise _fault(entry, "image_id", "the id of a listed picture", Kind.PICTURE_UNKNOWN)
    if label is None:
        raise _fault(entry, "category_id", f"one of the category ids {quoted(category_ids)}", Kind.CLASS_UNKNOWN)
    box = entry.get("bbox")
    if type(box) is not list or len(box) != 4 or not all(map(is_number, box)):
        raise _fault(entry, "bbox", "four numbers: x, y, width, height")
    area = entry.get("area")
    if area is None:
        area = box[2] * box[3]
    elif not is_number(area):
        raise _fault(entry, "area", "a number")
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise _fault(entry, "iscrowd", "0 or 1")
    return _identity(entry, "id"), picture, label, box, area, bool(crowd)


def _identity(entry: Entry, key: str) -> int:
    """The id under a key. Raises EntryError for anything else."""
    value = entry.get(key)
    if type(value) is str and value.isdecimal() and len(value) < 20:   # some tools write numbers as text
        value = int(value)
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise _fault(entry, key, "a whole number")
    return value


def _extent(entry: Entry, key: str) -> int:
    value = entry.get(key)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 < value <= LARGEST:
        raise _fault(entry, key, "a positive whole number of pixels")
    return value


def _text(entry: Entry, key: str) -> str:
    value = entry.get(key)
    if type(value) is not str or not value.strip() or "\0" in value or not is_unicode(value):
        raise _fault(entry, key, "a text")
    return value


def _fault(entry: Entry, key: str, expected: str, kind: Kind = Kind.ENTRY) -> EntryError:
    got = quoted(entry[key]) if key in entry else "nothing"
    return EntryError(kind, f"{key}: expected {expected}, got {got}")
