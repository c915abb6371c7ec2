"""Labels to correct, in the own formats of CVAT and Label Studio. Images stay where they are."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import numpy as np

from deformable_detr.detect.results.saved import Add, Classes, Saved
from deformable_detr.detect.results.whole_text import whole_list, whole_text
from deformable_detr.files import write_whole

LOCAL_FILES = "/data/local-files/?d="       # where Label Studio serves the files of its machine
CONTROL, OBJECT = "label", "image"          # as the interface of the project names them


@contextmanager
def labels(folder: Path, classes: Classes) -> Iterator[Add]:
    """cvat.xml, label_studio.json, and the interface for the latter's project."""
    write_whole(folder / "label_studio.xml", ET.tostring(_interface(classes), encoding="utf-8"))
    with whole_text(folder / "cvat.xml") as write, whole_list(folder / "label_studio.json") as write_task:
        write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
              f"{_text(_cvat_classes(classes))}\n")

        def add(saved: Saved) -> None:
            write(f"{_text(_cvat_image(saved, classes))}\n")
            write_task(json.dumps(_task(saved, classes)))
        yield add
        write("</annotations>\n")


def _cvat_classes(classes: Classes) -> ET.Element:
    meta = ET.Element("meta")
    listed = ET.SubElement(ET.SubElement(meta, "task"), "labels")
    for name in classes.names:
        ET.SubElement(ET.SubElement(listed, "label"), "name").text = name
    return meta


def _cvat_image(saved: Saved, classes: Classes) -> ET.Element:
    """CVAT has no place for a score."""
    height, width = saved.detections.image_size
    image = ET.Element("image", id=str(saved.number - 1), name=saved.listed, width=str(width), height=str(height))
    for each in saved.detections:
        edges = zip(("xtl", "ytl", "xbr", "ybr"), each.box.astype(float).tolist(), strict=True)
        ET.SubElement(image, "box", {"label": classes.names[each.label], "source": "auto", "occluded": "0",
                                     **{name: f"{edge:.3f}" for name, edge in edges}, "z_order": "0"})
    return image


def _text(element: ET.Element) -> str:
    ET.indent(element)
    return ET.tostring(element, encoding="unicode")


def _interface(classes: Classes) -> ET.Element:
    view = ET.Element("View")
    ET.SubElement(view, "Image", name=OBJECT, value="$image")
    control = ET.SubElement(view, "RectangleLabels", name=CONTROL, toName=OBJECT)
    for name in classes.names:
        ET.SubElement(control, "Label", value=name)
    ET.indent(view)
    return view


def _task(saved: Saved, classes: Classes) -> dict[str, Any]:
    """Boxes are in percent. The score of the whole is the mean: tasks can be sorted by it, the least sure first."""
    height, width = saved.detections.image_size
    scale = 100 / np.array([width, height, width, height], np.float64)
    result = []
    for number, each in enumerate(saved.detections, start=1):
        x0, y0, x1, y1 = (round(edge, 5) for edge in (each.box * scale).tolist())
        result.append({
            "id": str(number), "type": "rectanglelabels", "from_name": CONTROL, "to_name": OBJECT,
            "original_width": width, "original_height": height, "image_rotation": 0, "score": round(each.score, 6),
            "value": {"x": x0, "y": y0, "width": round(x1 - x0, 5), "height": round(y1 - y0, 5), "rotation": 0,
                      "rectanglelabels": [classes.names[each.label]]}})
    score = {"score": round(float(saved.detections.scores.mean()), 6)} if result else {}
    return {"data": {"image": _address(saved)},
            "predictions": [{"model_version": "deformable-detr", **score, "result": result}]}


def _address(saved: Saved) -> str:
    if saved.file.startswith(("http://", "https://")) and not saved.place:
        return saved.file
    return LOCAL_FILES + quote(f"{saved.folder}/{saved.listed}" if saved.folder else saved.listed)
