"""What is wrong with a data set: a fast part, from the annotations alone, and a look at every image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deformable_detr.check.classes import check_classes
from deformable_detr.check.duplicates import check_duplicates
from deformable_detr.check.images import Looks, look_at_all
from deformable_detr.check.limits import Limits
from deformable_detr.check.objects import check_objects
from deformable_detr.check.unlisted import check_unlisted
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError, Finding, Findings, Place
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.targets import find_box_faults, report_boxes

__all__ = ["Checkup", "Limits", "check_data", "check_splits"]

LimitsFor = Callable[[Mapping[str, Annotations]], Limits]


@dataclass(frozen=True)
class Checkup:
    """What was found out about a data set."""

    data: Path
    format: str | None                      # None where nothing could be read
    is_drawn: bool                          # whether val is a share of train
    splits: dict[str, Annotations]          # without what is at fault
    looks: Looks | None                     # None where no image was looked at
    findings: Findings

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "data": str(self.data), "format": self.format, "val_is_drawn": self.is_drawn,
            "splits": {split: {"pictures": len(annotations.images), "objects": len(annotations.boxes),
                               "empty_pictures": num_empty(annotations),
                               "classes": dict(zip(annotations.names, np.bincount(
                                   annotations.labels, minlength=len(annotations.names)).tolist(), strict=True))}
                       for split, annotations in self.splits.items()},
            "errors": self.findings.count("error"), "warnings": self.findings.count("warning"),
            "findings": [{"code": kind.code, "severity": kind.severity, "title": kind.title, "advice": kind.advice,
                          "count": count, "places": [_place(finding) for finding in kept]}
                         for kind, count, kept in self.findings.groups()]}


def num_empty(annotations: Annotations) -> int:
    """Images without objects."""
    return int((np.bincount(annotations.image_index, minlength=len(annotations.images)) == 0).sum())


def check_data(data: Path, limits_for: LimitsFor = lambda _: Limits(), *, fast: bool = False) -> Checkup:
    """Everything that is wrong with the data set in a folder; `fast`, without its images.

    Raises DataError where there is no data set.
    """
    findings = Findings()
    try:
        folder = DataFolder(data, findings)
    except DataError as error:
        _take(error, findings)
        return Checkup(data, None, False, {}, None, findings)
    splits = _read_splits(folder, findings)
    if splits:
        check_splits(splits, limits_for(splits), findings)
    looks = None
    if not fast:
        # YOLO and VOC report theirs as they are read; of a split that could not be, all would be reported here.
        if folder.source.format == "COCO" and len(splits) == len(folder.splits):
            check_unlisted(splits, findings)
        looks = look_at_all(splits, findings)
        check_duplicates(splits, looks, findings)
    return Checkup(data, folder.source.format, folder.is_drawn, splits, looks, findings)


def check_splits(splits: Mapping[str, Annotations], limits: Limits, findings: Findings) -> None:
    """The fast part: report what the annotations tell beyond what reading them has."""
    faults = {split: find_box_faults(annotations) for split, annotations in splits.items()}
    if splits:
        check_classes(splits, faults, findings)
    for split, annotations in splits.items():
        check_objects(annotations, faults[split], limits, findings)


def _read_splits(folder: DataFolder, findings: Findings) -> dict[str, Annotations]:
    """What can be read of every split; what is at fault, boxes included, is reported."""
    splits: dict[str, Annotations] = {}
    for split in folder.splits:
        try:
            annotations = folder.read(split, findings)
        except DataError as error:
            _take(error, findings)
            if folder.is_drawn:     # val would fail like train
                break
            continue
        if annotations.images:
            splits[split] = annotations
            report_boxes(annotations, find_box_faults(annotations), findings)
        else:
            findings.add(Kind.NO_IMAGES, Place(annotations.file), f"none of the images of {split} can be used")
    return splits


def _take(error: DataError, findings: Findings) -> None:
    """Report what stopped a reading. Raises the error again where it is not about the data set's content."""
    if error.finding is None:
        raise error
    findings.add(error.finding.kind, error.finding.place, error.finding.message)


def _place(finding: Finding) -> dict[str, Any]:
    place = finding.place
    return {"file": str(place.file), "line": place.line, "entry": place.entry or None, "message": finding.message}
