"""A COCO annotation file, checked entry by entry."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from deformable_detr.datasets.annotations import Annotations, ImageFolder
from deformable_detr.datasets.documents import DocumentError
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.coco_entries import Entry, Row, read_category, read_id, read_image, read_object
from deformable_detr.datasets.formats.coco_objects import Objects, joined, objects_of, sound_objects
from deformable_detr.datasets.image_list import ImageList
from deformable_detr.datasets.json_lists import Entries, read_json_lists
from deformable_detr.datasets.kinds import Kind
from deformable_detr.text import quoted

PIECE = 2000    # objects that are read at once; where one is at fault, each of them is looked at

Item = TypeVar("Item")


def read_annotations(file: Path) -> Annotations:
    """The checked content of a COCO annotation file, for images beside it.

    Raises DataError for a file that is not there, not JSON or not COCO, and names the first entry at fault.
    """
    return read_coco(file, Findings(strict=True))


def read_coco(file: Path, findings: Findings) -> Annotations:
    """The entries without fault; the others are reported. Raises DataError where nothing is left to read."""
    try:
        return _read_coco(file, findings)
    except DocumentError as error:
        stop(Kind.ANNOTATION_FILE, Place(file, error.line), str(error))


def _read_coco(file: Path, findings: Findings) -> Annotations:
    reader = _Reader(file, findings)
    categories = sorted(reader.each("categories", "category", read_category))
    categories = reader.once("category id", categories, lambda category: category[0])
    categories = reader.once("category name", categories, lambda category: category[1])
    if not categories:
        stop(Kind.ANNOTATION_FILE, Place(file), "categories: expected at least one, got none")
    images = reader.each("images", "image", read_image)
    images = reader.once("image id", images, lambda image: image.id)
    if not images:
        stop(Kind.NO_IMAGES, Place(file), "images: expected at least one image, got none")
    category_ids = tuple(identity for identity, _ in categories)
    objects = reader.objects(category_ids, [image.id for image in images])
    return Annotations(file, tuple(name for _, name in categories), category_ids, ImageList.of(images), *objects,
                       store=ImageFolder(file.parent))


class _Reader:
    """Reads the lists of one file; reports the entries at fault and leaves them out."""

    def __init__(self, file: Path, findings: Findings) -> None:
        self.file, self.findings = file, findings
        self.lists = _read_lists(file)

    def each(self, key: str, kind: str, read: Callable[[Entry], Item], part: slice = slice(None)) -> list[Item]:
        """What `read` makes of the entries of a list, or of a part; it raises EntryError for those that are none."""
        items = []
        for position, entry in enumerate(self.lists[key][part], start=part.start or 0):
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

    def objects(self, category_ids: Iterable[int], image_ids: Iterable[int]) -> Objects:
        """The objects of these classes and images. Entries that are left out take theirs along silently."""
        class_of = {identity: index for index, identity in enumerate(category_ids)}
        index_of = {identity: index for index, identity in enumerate(image_ids)}
        lost_images, lost_classes = self._lost("images", index_of), self._lost("categories", class_of)

        def read(entry: Entry) -> Row | None:
            image, category = read_id(entry, "image_id"), read_id(entry, "category_id")
            if image in lost_images or category in lost_classes:
                return None
            return read_object(entry, class_of.get(category), index_of.get(image), list(class_of))

        pieces = []
        for start in range(0, len(self.lists["annotations"]), PIECE):
            part = slice(start, start + PIECE)
            sound = sound_objects(self.lists["annotations"][part], class_of, index_of)
            pieces.append(objects_of([row for row in self.each("annotations", "annotation", read, part) if row])
                          if sound is None else sound)
        objects = joined(pieces)
        ids, first, counts = np.unique(objects.ids, return_index=True, return_counts=True)
        twice = ids[counts > 1][first[counts > 1].argsort()].tolist()
        self.findings.add_all(Kind.ANNOTATION_ID_TWICE, len(twice), (
            (Place(self.file, entry=f"annotation {identity}"), "expected once, got it again") for identity in twice))
        return objects

    def _lost(self, key: str, kept: Mapping[int, int]) -> set[int]:
        """The ids that a list gives to entries which were left out."""
        if len(kept) == len(self.lists[key]):
            return set()
        given = {entry["id"] for entry in self.lists[key] if isinstance(entry, dict) and type(entry.get("id")) is int}
        return given - set(kept)


def _read_lists(file: Path) -> dict[str, Any]:
    """The file's JSON object with its three lists. Raises DocumentError."""
    content = read_json_lists(file)
    expected = "not a COCO annotation file: expected an object with the lists images, annotations and categories"
    if not isinstance(content, dict):
        stop(Kind.ANNOTATION_FILE, Place(file), f"{expected}, got {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), (list, Entries)):
            got = type(content[key]).__name__ if key in content else "nothing"
            stop(Kind.ANNOTATION_FILE, Place(file), f"{expected}, got {got} for {key}")
    return content
