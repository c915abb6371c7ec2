"""What is wrong with a data set: a fast part, from the annotations only, and a part that decodes every image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from deformable_detr.check.boxes import faults_of_splits, report_boxes
from deformable_detr.check.classes import check_classes
from deformable_detr.check.duplicates import check_duplicates
from deformable_detr.check.files import check_leaks, check_sizes
from deformable_detr.check.images import ImageScan, scan_images
from deformable_detr.check.limits import Limits
from deformable_detr.check.objects import check_objects
from deformable_detr.check.unlisted import check_unlisted
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError, Finding, Findings, Place
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.kinds import Fault
from deformable_detr.progress import Progress, no_progress

LimitsFor = Callable[[Mapping[str, Annotations]], Limits]


@dataclass(frozen=True)
class Checkup:
    """The result of checking a data set."""

    data: Path
    format: str | None                      # None where nothing could be read
    is_drawn: bool                          # whether val is a share of train
    splits: dict[str, Annotations]          # without the entries at fault
    scan: ImageScan | None                  # None where no image was decoded
    findings: Findings

    def to_dict(self, advice_of: Callable[[Fault], str] = attrgetter("advice")) -> dict[str, Any]:
        """For JSON; `advice_of` gives the advice for a kind of fault."""
        return {
            "data": str(self.data), "format": self.format, "val_is_drawn": self.is_drawn,
            "splits": {split: {"pictures": len(annotations.images), "objects": len(annotations.boxes),
                               "empty_pictures": num_empty(annotations),
                               "classes": dict(zip(annotations.names, np.bincount(
                                   annotations.labels, minlength=len(annotations.names)).tolist(), strict=True))}
                       for split, annotations in self.splits.items()},
            "errors": self.findings.count("error"), "warnings": self.findings.count("warning"),
            "findings": [{"code": kind.code, "severity": kind.severity, "title": kind.title, "advice": advice_of(kind),
                          "count": count, "places": [_place(finding) for finding in kept]}
                         for kind, count, kept in self.findings.groups()]}


def num_empty(annotations: Annotations) -> int:
    """Number of images without objects."""
    return int((np.bincount(annotations.image_index, minlength=len(annotations.images)) == 0).sum())


def check_data(data: Path, limits_for: LimitsFor = lambda _: Limits(), *, fast: bool = False,
               progress: Progress = no_progress) -> Checkup:
    """Everything that is wrong with the data set in a folder; if `fast`, without decoding its images.

    Raises DataError where there is no data set.
    """
    findings = Findings()
    try:
        folder = DataFolder(data, findings, progress)
    except DataError as error:
        _take(error, findings)
        return Checkup(data, None, False, {}, None, findings)
    splits = _read_splits(folder, findings)
    scan = None
    if splits and fast:
        check_splits(splits, limits_for(splits), findings)
    elif splits:
        _check_annotations(splits, limits_for(splits), findings)
    if not fast:
        # If a split could not be read, all of its images would be reported.
        if not folder.source.reports_unlisted and len(splits) == len(folder.splits):
            check_unlisted(splits, findings)
        scan = scan_images(splits, findings, progress)
        check_duplicates(splits, scan, findings)
    return Checkup(data, folder.source.format, folder.is_drawn, splits, scan, findings)


def check_splits(splits: Mapping[str, Annotations], limits: Limits, findings: Findings) -> None:
    """The fast part, which decodes no image: what a training runs before it starts.

    Reports what the annotations show beyond the faults reported while reading them, images that two splits share, and
    of up to 100 images of each split those of another size than the annotations say.
    """
    _check_annotations(splits, limits, findings)
    check_sizes(splits, findings)
    check_leaks(splits, findings)


def _check_annotations(splits: Mapping[str, Annotations], limits: Limits, findings: Findings) -> None:
    faults = faults_of_splits(splits)
    if splits:
        check_classes(splits, faults, findings, mirrored=limits.mirrored)
    for split, annotations in splits.items():
        check_objects(annotations, faults[split], limits, findings)


def _read_splits(folder: DataFolder, findings: Findings) -> dict[str, Annotations]:
    """All that can be read of every split; what is at fault, boxes included, is reported."""
    splits: dict[str, Annotations] = {}
    for split in folder.splits:
        try:
            annotations = folder.read(split, findings)
        except DataError as error:
            _take(error, findings)
            if folder.is_drawn:     # val would fail as train did
                break
            continue
        if annotations.images:
            splits[split] = annotations
        else:
            findings.add(Fault.NO_IMAGES, Place(annotations.file), f"none of the images of {split} can be used")
    for split, faults in faults_of_splits(splits).items():
        report_boxes(splits[split], faults, findings)
    return splits


def _take(error: DataError, findings: Findings) -> None:
    """Report the finding that stopped a reading. Raises the error again where it has none."""
    if error.finding is None:
        raise error
    findings.add(error.finding.kind, error.finding.place, error.finding.message)


def _place(finding: Finding) -> dict[str, Any]:
    place = finding.place
    return {"file": str(place.file), "line": place.line, "entry": place.entry or None, "message": finding.message}
