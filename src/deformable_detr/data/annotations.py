"""A COCO annotation file, read once and checked entry by entry, as arrays."""

import json
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int64

from deformable_detr.structures import ImageSize

Entry = dict[str, Any]
Read = TypeVar("Read")

LARGEST = 2**63 - 1     # ids are kept in int64 arrays


class DataError(ValueError):
    """A data set that cannot be used: which file, which entry, what came and what was expected."""

    def __init__(self, message: str) -> None:
        # A loader's worker process hands its error over as one text, traceback first: the message is its end.
        super().__init__(message.rpartition("DataError: ")[2].rstrip())


@dataclass(frozen=True, slots=True)
class Picture:
    """One listed picture; sizes are pixels."""

    id: int
    file_name: str
    width: int
    height: int

    @property
    def size(self) -> ImageSize:
        """(height, width)"""
        return self.height, self.width


@dataclass(frozen=True)
class Annotations:
    """What one annotation file says, unchanged; the arrays run over its T annotations in the file's order."""

    file: Path
    names: tuple[str, ...]                      # of class 0..K-1, which is the order of the ids
    category_ids: tuple[int, ...]               # ascending, gaps allowed
    pictures: tuple[Picture, ...]
    ids: Int64[np.ndarray, "T"]
    picture_index: Int64[np.ndarray, "T"]       # into `pictures`
    labels: Int64[np.ndarray, "T"]              # class indices 0..K-1
    boxes: Float[np.ndarray, "T 4"]             # float64: x, y, width, height in pixels
    areas: Float[np.ndarray, "T"]               # float64: of the object's mask, where the file gives it
    crowd: Bool[np.ndarray, "T"]                # True where the box holds a crowd


def read_annotations(file: Path) -> Annotations:
    """The checked content of a COCO annotation file.

    Raises DataError for a file that is not there, not JSON or not COCO, and names the first entry at fault.
    """
    lists = _read_lists(file)
    categories = sorted(_read_each(lists, file, "categories", "category", _read_category))
    if not categories:
        raise DataError(f"{file}: categories: expected at least one, got none")
    _refuse_twins(file, "category id", (identity for identity, _ in categories))
    _refuse_twins(file, "category name", (name for _, name in categories))
    pictures = _read_each(lists, file, "images", "picture", _read_picture)
    if not pictures:
        raise DataError(f"{file}: images: expected at least one picture, got none")
    _refuse_twins(file, "picture id", (picture.id for picture in pictures))
    class_of = {identity: index for index, (identity, _) in enumerate(categories)}
    index_of = {picture.id: index for index, picture in enumerate(pictures)}
    rows = _read_each(lists, file, "annotations", "annotation",
                      lambda reader, entry: _read_annotation(reader, entry, class_of, index_of))
    ids, picture_index, labels, boxes, areas, crowd = zip(*rows, strict=True) if rows else ((),) * 6
    return Annotations(
        file, tuple(name for _, name in categories), tuple(category for category, _ in categories),
        tuple(pictures),
        np.array(ids, np.int64), np.array(picture_index, np.int64), np.array(labels, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4), np.array(areas, np.float64), np.array(crowd, bool))


class _Fields:
    """Takes checked fields out of the entries of one kind; its errors name the file and the entry."""

    def __init__(self, file: Path, kind: str) -> None:
        self.file, self.kind = file, kind

    def error(self, entry: Entry, key: str, expected: str) -> DataError:
        name = reprlib.repr(entry["id"]) if "id" in entry else "without id"
        got = reprlib.repr(entry[key]) if key in entry else "nothing"
        return DataError(f"{self.file}: {self.kind} {name}: {key}: expected {expected}, got {got}")

    def identity(self, entry: Entry, key: str) -> int:
        value = entry.get(key)
        if type(value) is str and value.isdecimal() and len(value) < 20:   # some tools write numbers as text
            value = int(value)
        if type(value) is not int or not 0 <= value <= LARGEST:
            raise self.error(entry, key, "a whole number")
        return value

    def extent(self, entry: Entry, key: str) -> int:
        value = entry.get(key)
        if type(value) is not int or not 0 < value <= LARGEST:
            raise self.error(entry, key, "a positive whole number of pixels")
        return value

    def text(self, entry: Entry, key: str) -> str:
        value = entry.get(key)
        if type(value) is not str or not value.strip() or "\0" in value or not _is_unicode(value):
            raise self.error(entry, key, "a text")
        return value


def _read_category(fields: _Fields, entry: Entry) -> tuple[int, str]:
    return fields.identity(entry, "id"), fields.text(entry, "name")


def _read_picture(fields: _Fields, entry: Entry) -> Picture:
    return Picture(fields.identity(entry, "id"), fields.text(entry, "file_name"),
                   fields.extent(entry, "width"), fields.extent(entry, "height"))


def _read_annotation(fields: _Fields, entry: Entry, class_of: dict[int, int], index_of: dict[int, int],
                     ) -> tuple[int, int, int, list[float], float, bool]:
    """id, picture index, class index, box, area, crowd"""
    identity = fields.identity(entry, "id")
    picture = index_of.get(fields.identity(entry, "image_id"))
    if picture is None:
        raise fields.error(entry, "image_id", "the id of a listed picture")
    label = class_of.get(fields.identity(entry, "category_id"))
    if label is None:
        raise fields.error(entry, "category_id", f"one of the category ids {reprlib.repr(list(class_of))}")
    box = entry.get("bbox")
    if type(box) is not list or len(box) != 4 or not all(map(_is_number, box)):
        raise fields.error(entry, "bbox", "four numbers: x, y, width, height")
    area = entry.get("area")
    if area is None:
        area = box[2] * box[3]
    elif not _is_number(area):
        raise fields.error(entry, "area", "a number")
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise fields.error(entry, "iscrowd", "0 or 1")
    return identity, picture, label, box, area, bool(crowd)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST    # which NaN is not


def _is_unicode(text: str) -> bool:
    """JSON can spell half a character, which no file system takes."""
    return text.encode(errors="ignore").decode() == text


def _read_lists(file: Path) -> dict[str, Any]:
    """The file's JSON object with its three lists."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except RecursionError:
        raise DataError(f"{file}: not a COCO annotation file: its JSON is nested too deeply") from None
    except ValueError as error:     # broken JSON, broken UTF-8, numbers of thousands of digits
        raise DataError(f"{file}: not valid JSON: {error}") from error
    expected = "an object with the lists images, annotations and categories"
    if not isinstance(content, dict):
        raise DataError(f"{file}: not a COCO annotation file: expected {expected}, "
                        f"got {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            got = type(content[key]).__name__ if key in content else "nothing"
            raise DataError(f"{file}: not a COCO annotation file: expected {expected}, got {got} for {key}")
    return content


def _read_each(lists: dict[str, Any], file: Path, key: str, kind: str,
               read: Callable[[_Fields, Entry], Read]) -> list[Read]:
    fields = _Fields(file, kind)
    for position, entry in enumerate(lists[key]):
        if not isinstance(entry, dict):
            raise DataError(f"{file}: {key}[{position}]: expected an object, got {reprlib.repr(entry)}")
    return [read(fields, entry) for entry in lists[key]]


def _refuse_twins(file: Path, kind: str, values: Iterable[int | str]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise DataError(f"{file}: {kind} {value!r}: expected once, got it twice")
        seen.add(value)
