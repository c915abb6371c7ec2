"""What an entry of a COCO annotation file has to be, and what is said about one that is something else."""

from typing import Any

from deformable_detr.datasets.findings import EntryError
from deformable_detr.datasets.formats.source import LARGEST, is_number
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Kind
from deformable_detr.text import CONTROL_CHARACTER, is_unicode, quoted

Entry = dict[str, Any]
Row = tuple[int, int, int, list[float], float, bool]    # id, image index, class index, box, area, crowd


def read_category(entry: Entry) -> tuple[int, str]:
    """Id and name. Raises EntryError."""
    name = _text(entry, "name")
    if CONTROL_CHARACTER.search(name):
        raise EntryError(Kind.NAME_REFUSED, f"name: expected no control characters, got {quoted(name)}")
    return read_id(entry, "id"), name


def read_image(entry: Entry) -> ImageRecord:
    """The image. Raises EntryError."""
    return ImageRecord(read_id(entry, "id"), _text(entry, "file_name"), _extent(entry, "width"),
                       _extent(entry, "height"))


def read_object(entry: Entry, label: int | None, image: int | None, category_ids: list[int]) -> Row:
    """The object of a class and an image, by their indices. Raises EntryError, where one is unknown too."""
    if image is None:
        raise _fault(entry, "image_id", "the id of a listed image", Kind.PICTURE_UNKNOWN)
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
    return read_id(entry, "id"), image, label, box, area, bool(crowd)


def read_id(entry: Entry, key: str) -> int:
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
