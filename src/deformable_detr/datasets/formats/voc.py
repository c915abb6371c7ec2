"""Pascal VOC data sets: an XML file per image, with a name and two corners for each object."""

from math import nan
from pathlib import Path

from deformable_detr.datasets.findings import EntryError, Findings, Place
from deformable_detr.datasets.formats.label_files import LabelFile, LabelFolder, LabelledObject
from deformable_detr.datasets.formats.source import check_class_name, is_number
from deformable_detr.datasets.kinds import Fault
from deformable_detr.documents import DocumentError, Element, read_xml
from deformable_detr.text import quoted

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocFolder(LabelFolder):
    """A folder with one XML file per image."""

    format = "VOC"
    layout = "Annotations/ and JPEGImages/, or an XML file beside each image"
    suffix = ".xml"
    pairs = (("Annotations", "JPEGImages"), ("Annotations", "images"), ("annotations", "images"), (".", "."))

    @staticmethod
    def is_label_file(file: Path) -> bool:
        return file.name != "annotations.xml"     # CVAT's own, of all images

    @staticmethod
    def read_file(file: Path, findings: Findings) -> LabelFile | None:
        """Corners are taken as the edges of the box, as today's labelling tools write them."""
        try:
            root = read_xml(file)
            if root.name != "annotation":
                raise DocumentError(f"not a VOC annotation: expected <annotation>, got <{root.name[:40]}>", root.line)
        except DocumentError as error:
            findings.add(Fault.ANNOTATION_FILE, Place(file, error.line), str(error))
            return None
        objects = []
        for element in root.children:
            if element.name == "object":
                try:
                    name = check_class_name(element.text_of("name"))
                    objects.append(LabelledObject(name, _read_box(element), element.line))
                except EntryError as fault:
                    findings.add(fault.kind, Place(file, element.line), fault.message)
        return LabelFile(file, root.text_of("filename"), _read_size(root), tuple(objects))


def _read_size(root: Element) -> tuple[int, int] | None:
    """(width, height); None where the tool that wrote the file did not know them."""
    size = root.find("size")
    sides = [size.text_of(side) if size else None for side in ("width", "height")]
    width, height = (int(side) if side and side.isdecimal() and len(side) < 10 else 0 for side in sides)
    return (width, height) if width and height else None


def _read_box(element: Element) -> tuple[float, float, float, float]:
    corners = element.find("bndbox")
    if corners is None:
        raise EntryError(Fault.ENTRY, "bndbox: expected xmin, ymin, xmax and ymax, got nothing")
    left, top, right, bottom = (_read_number(corners, name) for name in CORNERS)
    return left, top, right - left, bottom - top


def _read_number(corners: Element, name: str) -> float:
    text = corners.text_of(name)
    try:
        value = float(text or "")
    except ValueError:
        value = nan
    if not is_number(value):
        raise EntryError(Fault.ENTRY, f"{name}: expected a number of pixels, got {quoted(text) if text else 'nothing'}")
    return value
