"""Hugging Face's image folders: images, and a file metadata.jsonl that has a line for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deformable_detr.datasets.annotations import Annotations, ImageFolder
from deformable_detr.datasets.building import AnnotationBuilder, measured
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.coco import object_entries, read_object_entry
from deformable_detr.datasets.formats.source import CLASSES_FILE, DataSource, check_class_names, file_of_each_split
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import FileNames, check_name, present, read_list
from deformable_detr.documents import DocumentError, parse_json, read_lines
from deformable_detr.text import quoted

FILE = "metadata.jsonl"
MARKS = ("file_name",)
BOXES = ("bbox", "bboxes", "boxes")                                         # x, y, width, height in pixels, as COCO's
CATEGORIES = ("category", "categories", "category_id", "label", "labels")   # names, or numbers of classes
MOST_CLASSES = 100_000


@dataclass(frozen=True)
class ImageFolderSource(DataSource[Path]):
    """A folder with metadata.jsonl, or one in the folder of each split."""

    format = "imagefolder"
    layout = "train/metadata.jsonl and the images beside it"
    reports_unlisted = False

    @classmethod
    def find(cls, folder: Path, findings: Findings) -> "ImageFolderSource | None":
        places = file_of_each_split(folder, FILE, MARKS, findings)
        return cls(folder, places) if places else None

    def read(self, split: str, findings: Findings) -> Annotations:
        file, lines = self.places[split], self._lines[split]
        builder, names = AnnotationBuilder(self._names), FileNames(file.parent)
        identity_of = {name: identity for identity, name in self._names.items()}
        for number, entry in self.progress(lines, len(lines), f"reading images of {split}"):
            try:
                if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
                    raise EntryError(Fault.ENTRY, f"expected an object with a file_name, got {quoted(entry)}")
                name = entry["file_name"]
                check_name(name)
                found = names.find(name)
                if found is None:
                    raise EntryError(Fault.PICTURE_MISSING, f"{quoted(name)} is not in {file.parent}")
                builder.start(measured(builder.num_images + 1, found, file.parent / found), file)
            except EntryError as fault:
                findings.add(fault.kind, Place(file, number), fault.message)
                continue
            for index, fields in enumerate(_objects(entry)):
                category = fields.get("category_id")
                fields["category_id"] = identity_of.get(category, category) if isinstance(category, str) else category
                try:
                    record = read_object_entry({**fields, "id": index}, builder.class_of, builder.num_images - 1)
                    builder.add(record.label, record.box, area=record.area, crowd=record.crowd, line=number)
                except EntryError as fault:
                    findings.add(fault.kind, Place(file, number, f"object {index}"), fault.message)
        if not builder.num_images:
            stop(Fault.NO_IMAGES, Place(file), "expected lines with a file_name, got none that can be read")
        return present(builder.annotations(file, ImageFolder(file.parent)), file.parent, self.folder, findings)

    @cached_property
    def _names(self) -> dict[int, str]:
        """Those of classes.txt by their numbers; else the names in all splits, sorted, or the numbers themselves."""
        if (self.folder / CLASSES_FILE).is_file():
            listed = (name for _, name in read_list(self.folder / CLASSES_FILE, self.folder))
            return check_class_names(self.folder / CLASSES_FILE, dict(enumerate(listed)))
        used = {fields.get("category_id") for lines in self._lines.values() for _, entry in lines
                for fields in _objects(entry) if isinstance(fields.get("category_id"), str | int)}
        words = sorted({name for name in used if isinstance(name, str)})
        numbers = [number for number in used if type(number) is int and 0 <= number < MOST_CLASSES]
        names = dict(enumerate(words or map(str, range(max(numbers, default=0) + 1))))
        return check_class_names(next(iter(self.places.values())), names)

    @cached_property
    def _lines(self) -> dict[str, list[tuple[int, Any]]]:
        """The numbers of the lines of each split, and their values."""
        found = {}
        for split, file in self.places.items():
            try:
                lines = enumerate(read_lines(file), start=1)
                found[split] = [(number, parse_json(line.encode())) for number, line in lines if line.strip()]
            except DocumentError as error:
                stop(Fault.ANNOTATION_FILE, Place(file), str(error))
        return found


def _objects(entry: Any) -> list[dict[str, Any]]:
    """The objects of a line, under COCO's names."""
    objects = entry.get("objects") if isinstance(entry, Mapping) else None
    return [{_coco_key(name): value for name, value in fields.items() if value is not None}
            for fields in object_entries(objects)]


def _coco_key(name: str) -> str:
    return "bbox" if name in BOXES else "category_id" if name in CATEGORIES else name
