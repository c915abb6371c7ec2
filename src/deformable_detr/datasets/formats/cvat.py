"""CVAT for images: one XML file with all images, and shapes with a label for each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import cos, nan, radians, sin
from pathlib import Path

from deformable_detr.datasets.annotations import Annotations, ImageFolder
from deformable_detr.datasets.building import AnnotationBuilder
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.source import (
    DataSource,
    check_class_name,
    check_class_names,
    file_of_each_split,
    is_number,
)
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import present
from deformable_detr.documents import DocumentError, Element, read_xml
from deformable_detr.text import quoted

FILE = "annotations.xml"
MARKS = ("<annotations>",)
NO_SHAPES = ("tag", "points", "skeleton")       # which have no extent that a detector could find

Box = tuple[float, float, float, float]         # x, y, width, height in pixels


@dataclass(frozen=True)
class CvatFolder(DataSource[Path]):
    """A folder with CVAT's own XML file, or one for each split; of every shape the box around it is taken."""

    format = "CVAT"
    layout = "annotations.xml of CVAT for images, and images/"
    reports_unlisted = False

    @classmethod
    def find(cls, folder: Path, findings: Findings) -> "CvatFolder | None":
        places = file_of_each_split(folder, FILE, MARKS, findings)
        return cls(folder, places) if places else None

    def read(self, split: str, findings: Findings) -> Annotations:
        file, names = self.places[split], self._names
        builder = AnnotationBuilder(names)
        class_of = {name: index for index, name in enumerate(names.values())}
        images = [child for child in self._roots[split].children if child.name == "image"]
        for element in self.progress(images, len(images), f"reading images of {split}"):
            try:
                builder.start(_read_image(element, builder.num_images + 1), file)
            except EntryError as fault:
                findings.add(fault.kind, Place(file, element.line), fault.message)
                continue
            for shape in element.children:
                try:
                    found = _read_shape(shape)
                    if found is not None:
                        builder.add(class_of[check_class_name(shape.attributes.get("label"))], found, line=shape.line)
                except EntryError as fault:
                    findings.add(fault.kind, Place(file, shape.line), fault.message)
        if not builder.num_images:
            stop(Fault.NO_IMAGES, Place(file), "expected elements <image>, got none; CVAT for video is not read: "
                 "export the task as CVAT for images, with images")
        folder = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
        annotations = builder.annotations(file, ImageFolder(folder))
        return present(replace(annotations, store=ImageFolder(folder)), folder, self.folder, findings)

    @cached_property
    def _names(self) -> dict[int, str]:
        """The labels of the task, and those of shapes that it does not list; numbered from 1."""
        found: dict[str, None] = {}
        for split, root in self._roots.items():
            listed = [name for label in _labels(root) if (name := label.text_of("name"))]
            used = sorted({shape.attributes["label"] for image in root.children if image.name == "image"
                           for shape in image.children if shape.attributes.get("label") and shape.name != "tag"})
            names = check_class_names(self.places[split], dict(enumerate(dict.fromkeys(listed + used))))
            found |= dict.fromkeys(names.values())
        return dict(enumerate(found, start=1))

    @cached_property
    def _roots(self) -> dict[str, Element]:
        roots = {}
        for split, file in self.places.items():
            try:
                roots[split] = read_xml(file)
            except DocumentError as error:
                stop(Fault.ANNOTATION_FILE, Place(file, error.line), str(error))
        return roots


def _labels(root: Element) -> Iterator[Element]:
    """The labels in the task, the job or the project that was exported."""
    for part in (child for meta in root.children if meta.name == "meta" for child in meta.children):
        labels = part.find("labels")
        yield from labels.children if labels else ()


def _read_image(element: Element, identity: int) -> ImageRecord:
    name = element.attributes.get("name")
    sides = [element.attributes.get(side, "") for side in ("width", "height")]
    if not name:
        raise EntryError(Fault.ENTRY, "name: expected the name of a file, got nothing")
    if not all(side.isdecimal() and int(side[:10]) > 0 for side in sides):
        raise EntryError(Fault.ENTRY, f"expected a positive width and height, got {quoted(sides)}")
    return ImageRecord(identity, name, *(int(side[:10]) for side in sides))


def _read_shape(shape: Element) -> Box | None:
    """The box around a shape; None for what has no extent."""
    if shape.name in NO_SHAPES:
        return None
    if shape.name == "box":
        left, top, right, bottom = (_number(shape, name) for name in ("xtl", "ytl", "xbr", "ybr"))
        angle = radians(_number(shape, "rotation") if "rotation" in shape.attributes else 0)
        if not angle:
            return left, top, right - left, bottom - top
        across, down = (right - left) / 2, (bottom - top) / 2
        half_width = abs(across * cos(angle)) + abs(down * sin(angle))
        half_height = abs(across * sin(angle)) + abs(down * cos(angle))
        return (left + right) / 2 - half_width, (top + bottom) / 2 - half_height, 2 * half_width, 2 * half_height
    if shape.name == "ellipse":
        x, y, radius_x, radius_y = (_number(shape, name) for name in ("cx", "cy", "rx", "ry"))
        return x - radius_x, y - radius_y, 2 * radius_x, 2 * radius_y
    if shape.name == "mask":
        left, top, width, height = (_number(shape, name) for name in ("left", "top", "width", "height"))
        return left, top, width, height
    if shape.name in ("polygon", "polyline"):
        xs, ys = zip(*map(_point, shape.attributes.get("points", "").split(";")), strict=True)
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    raise EntryError(Fault.ENTRY, f"expected a box or an outline, got <{shape.name[:40]}>")


def _number(shape: Element, name: str) -> float:
    return _float(name, shape.attributes.get(name, ""))


def _point(text: str) -> tuple[float, float]:
    x, _, y = text.partition(",")
    return _float("points", x), _float("points", y)


def _float(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not is_number(value):
        raise EntryError(Fault.ENTRY, f"{name}: expected a number of pixels, got {quoted(text) if text else 'nothing'}")
    return value
