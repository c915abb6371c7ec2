"""A Pascal VOC data set."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from deformable_detr.detect.results.image_files import copy_image
from deformable_detr.detect.results.saved import Add, Classes, Saved
from deformable_detr.detect.results.whole_text import whole_text
from deformable_detr.files import write_whole


@contextmanager
def voc(folder: Path, classes: Classes) -> Iterator[Add]:
    """Images, an XML file for each, and a list of them. Edges are counted from 0, as today's labelling tools do."""
    sheets, images = folder / "Annotations", folder / "JPEGImages"
    sheets.mkdir(parents=True)
    images.mkdir()
    write_whole(folder / "classes.txt", "".join(f"{name}\n" for name in classes.names).encode())

    with whole_text(folder / "ImageSets" / "Main" / "train.txt") as write:
        def add(saved: Saved) -> None:
            copy_image(saved, images)
            sheet = _sheet(saved, classes)
            ET.indent(sheet)
            stem = Path(saved.name).stem
            write_whole(sheets / f"{stem}.xml", ET.tostring(sheet, encoding="utf-8"))
            write(f"{stem}\n")
        yield add


def _sheet(saved: Saved, classes: Classes) -> ET.Element:
    height, width = saved.detections.image_size
    root = ET.Element("annotation")
    _children(root, folder="JPEGImages", filename=saved.name)
    _children(ET.SubElement(root, "size"), width=width, height=height, depth=3)
    _children(root, segmented=0)
    for each in saved.detections:
        found = ET.SubElement(root, "object")
        _children(found, name=classes.names[each.label], pose="Unspecified", truncated=0, difficult=0,
                  confidence=round(each.score, 6))
        edges = (round(edge, 3) for edge in each.box.astype(float).tolist())
        _children(ET.SubElement(found, "bndbox"), **dict(zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True)))
    return root


def _children(parent: ET.Element, **texts: object) -> None:
    for name, text in texts.items():
        ET.SubElement(parent, name).text = str(text)
