"""Pascal VOC's XML: a file an image, with a name and two corners for each object."""

from dataclasses import dataclass
from math import nan
from pathlib import Path

from deformable_detr.datasets.documents import DocumentError, Element, read_xml
from deformable_detr.datasets.findings import EntryError, Findings, Place
from deformable_detr.datasets.formats.source import is_number
from deformable_detr.datasets.kinds import Kind
from deformable_detr.text import CONTROL_CHARACTER, quoted

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class LabelledObject:
    """One object of a file."""

    name: str
    box: tuple[float, float, float, float]      # x, y, width, height in pixels
    line: int


@dataclass(frozen=True)
class Sheet:
    """What one XML file says."""

    file: Path
    file_name: str | None                       # of the image
    size: tuple[int, int] | None                # (width, height), where the file gives it
    objects: tuple[LabelledObject, ...]


def read_sheet(file: Path, findings: Findings) -> Sheet | None:
    """Read an XML file without what is at fault, which is reported; None where nothing is left.

    Corners are taken as the edges of the box, as the labelling tools of today write them.
    """
    try:
        root = read_xml(file)
        if root.name != "annotation":
            raise DocumentError(f"not a VOC annotation: expected <annotation>, got <{root.name[:40]}>", root.line)
    except DocumentError as error:
        findings.add(Kind.ANNOTATION_FILE, Place(file, error.line), str(error))
        return None
    objects = []
    for element in root.children:
        if element.name == "object":
            try:
                objects.append(LabelledObject(_read_name(element), _read_box(element), element.line))
            except EntryError as fault:
                findings.add(fault.kind, Place(file, element.line), fault.message)
    return Sheet(file, root.text_of("filename"), _read_size(root), tuple(objects))


def _read_size(root: Element) -> tuple[int, int] | None:
    """(width, height); None where the tool that wrote the file did not know."""
    size = root.find("size")
    sides = [size.text_of(side) if size else None for side in ("width", "height")]
    width, height = (int(side) if side and side.isdecimal() and len(side) < 10 else 0 for side in sides)
    return (width, height) if width and height else None


def _read_name(element: Element) -> str:
    name = element.text_of("name")
    if not name:
        raise EntryError(Kind.ENTRY, "name: expected the name of a class, got nothing")
    if CONTROL_CHARACTER.search(name):
        raise EntryError(Kind.NAME_REFUSED, f"name: expected no control characters, got {quoted(name)}")
    return name


def _read_box(element: Element) -> tuple[float, float, float, float]:
    corners = element.find("bndbox")
    if corners is None:
        raise EntryError(Kind.ENTRY, "bndbox: expected xmin, ymin, xmax and ymax, got nothing")
    left, top, right, bottom = (_read_number(corners, name) for name in CORNERS)
    return left, top, right - left, bottom - top


def _read_number(corners: Element, name: str) -> float:
    text = corners.text_of(name)
    try:
        value = float(text or "")
    except ValueError:
        value = nan
    if not is_number(value):
        raise EntryError(Kind.ENTRY, f"{name}: expected a number of pixels, got {quoted(text) if text else 'nothing'}")
    return value
