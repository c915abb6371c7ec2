"""LabelMe's data sets: a JSON file per image, with a label and points for each shape."""

from math import hypot
from pathlib import Path
from typing import Any

from deformable_detr.datasets.findings import EntryError, Findings, Place
from deformable_detr.datasets.formats.label_files import LabelFile, LabelFolder, LabelledObject
from deformable_detr.datasets.formats.source import begins_with, check_class_name, is_number
from deformable_detr.datasets.kinds import Fault
from deformable_detr.documents import DocumentError, parse_json, read_bytes
from deformable_detr.text import quoted

MARKS = ('"shapes"', '"version"')
MAX_BYTES = 2**26       # of a file, which may hold its image too


class LabelMeFolder(LabelFolder):
    """A folder with one JSON file per image; of every shape the box around it is taken."""

    format = "LabelMe"
    layout = "a JSON file of LabelMe beside each image"
    suffix = ".json"
    pairs = ((".", "."), ("annotations", "images"), ("labels", "images"), ("json", "images"))

    @staticmethod
    def is_label_file(file: Path) -> bool:
        return begins_with(file, MARKS)

    @staticmethod
    def read_file(file: Path, findings: Findings) -> LabelFile | None:
        try:
            content = parse_json(read_bytes(file, MAX_BYTES))
            if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
                raise DocumentError("not an annotation of LabelMe: expected an object with a list of shapes")
        except DocumentError as error:
            findings.add(Fault.ANNOTATION_FILE, Place(file), str(error))
            return None
        objects = []
        for number, shape in enumerate(content["shapes"]):
            try:
                objects.append(_read_shape(shape))
            except EntryError as fault:
                findings.add(fault.kind, Place(file, entry=f"shape {number}"), fault.message)
        path, sides = content.get("imagePath"), (content.get("imageWidth"), content.get("imageHeight"))
        width, height = (side if type(side) is int and side > 0 else 0 for side in sides)
        # The path is from wherever the image was; here it lies beside the file.
        name = path.replace("\\", "/").rpartition("/")[2] if isinstance(path, str) else None
        return LabelFile(file, name or None, (width, height) if width and height else None, tuple(objects))


def _read_shape(shape: Any) -> LabelledObject:
    if not isinstance(shape, dict):
        raise EntryError(Fault.ENTRY, f"expected an object, got {quoted(shape)}")
    name, points = check_class_name(shape.get("label")), shape.get("points")
    if not isinstance(points, list) or len(points) < 2 or not all(map(_is_point, points)):
        raise EntryError(Fault.ENTRY, f"points: expected at least two of x and y each, got {quoted(points)}")
    if shape.get("shape_type") == "circle":     # its centre, and a point on it
        (x, y), (other_x, other_y), *_ = points
        radius = hypot(other_x - x, other_y - y)
        return LabelledObject(name, (x - radius, y - radius, 2 * radius, 2 * radius))
    xs, ys = zip(*points, strict=True)
    return LabelledObject(name, (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)))


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))
