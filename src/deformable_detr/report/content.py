"""The content of the page, under the names that its template uses."""

import platform
import shlex
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from deformable_detr import __version__
from deformable_detr.check.boxes import find_box_faults
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.detect.detector import Detector
from deformable_detr.evaluation import CocoCurves, CocoEvaluator, CocoMetrics
from deformable_detr.plots import Chart, line_chart
from deformable_detr.report.classes import ClassRow, SizeRow, class_rows, size_rows
from deformable_detr.report.confusion import Confusion, confusion
from deformable_detr.report.curves import curve_charts
from deformable_detr.report.errors import ErrorKind, Outcomes, count_errors, judge
from deformable_detr.report.gallery import ShownImage, choose_images, show_images
from deformable_detr.report.history import History
from deformable_detr.report.thresholds import CANDIDATES, AtThreshold, at_thresholds, best, image_counts

MAX_CHARTS = 24     # of classes; the table has all of them
MAX_NOTES = 40      # from the weights' provenance
SHOWN_IOUS = {0: "IoU 0.50", 5: "IoU 0.75", 8: "IoU 0.90"}
RECALLS = np.linspace(0, 1, 101).tolist()
LIBRARIES = ("torch", "torchvision", "timm", "faster-coco-eval", "numpy")


@dataclass(frozen=True)
class Subject:
    """What a report is about: a detector, and what it has detected in a data set."""

    detector: Detector
    weights: str                # as `--weights` takes them
    evaluator: CocoEvaluator
    history: History | None = None


@dataclass(frozen=True)
class Content:
    """The parts of the page from top to bottom."""

    weights: str
    data: str
    num_images: int
    num_objects: int
    num_untrainable: int                                # objects that training leaves out and the evaluation counts
    headline: dict[str, float]
    only_in_model: tuple[str, ...]                      # classes
    only_in_data: tuple[str, ...]
    chosen: AtThreshold
    commands: tuple[str, str]
    thresholds: list[AtThreshold]
    threshold_chart: Chart
    classes: list[ClassRow]
    sizes: list[SizeRow]
    precision_charts: list[Chart]
    confusion: Confusion
    errors: list[ErrorKind]
    galleries: dict[str, list[ShownImage]]
    has_crowds: bool
    training_charts: list[Chart]
    provenance: dict[str, str]
    settings: dict[str, str]


def build_content(subject: Subject, metrics: CocoMetrics, curves: CocoCurves) -> Content:
    """Count and draw everything. Raises DataError for an image that cannot be read."""
    evaluator, annotations = subject.evaluator, subject.evaluator.annotations
    outcomes = judge(evaluator)
    num_objects = int(outcomes.counted.sum())
    thresholds = at_thresholds(outcomes, num_objects)
    chosen = best(thresholds)
    classes = class_rows(annotations, curves, outcomes)
    return Content(
        weights=subject.weights,
        data=str(annotations.file),
        num_images=len(annotations.images),
        num_objects=num_objects,
        num_untrainable=int((outcomes.counted & ~find_box_faults(annotations).usable).sum()),
        headline={name.replace("_", " "): value for name, value in asdict(metrics).items() if name != "per_class"},
        only_in_model=evaluator.match.only_in_model,
        only_in_data=evaluator.match.only_in_data,
        chosen=chosen,
        commands=_commands(subject.weights, chosen),
        thresholds=[at for at in thresholds if at is chosen or (_is_round(at.threshold) and at.right + at.wrong)],
        threshold_chart=line_chart("by threshold", "score threshold", CANDIDATES.tolist(), {
            "precision": [at.precision for at in thresholds], "recall": [at.recall for at in thresholds],
            "F1": [at.f1 for at in thresholds]}),
        classes=classes,
        sizes=size_rows(annotations, metrics),
        precision_charts=_precision_charts(classes, curves),
        confusion=confusion(evaluator, chosen.threshold),
        errors=count_errors(outcomes),
        galleries=_galleries(evaluator, outcomes, chosen.threshold),
        has_crowds=bool(annotations.crowd.any()),
        training_charts=curve_charts(subject.history.columns) if subject.history else [],
        provenance=_provenance(subject, annotations),
        settings=_settings(subject))


def _is_round(threshold: float) -> bool:
    return round(100 * threshold) % 5 == 0


def _commands(weights: str, chosen: AtThreshold) -> tuple[str, str]:
    """How to detect with these weights, in a shell and in Python."""
    shell = f"ddetr detect IMAGE --weights {shlex.quote(weights)} --threshold {chosen.threshold:g}"
    python = (f"from deformable_detr import Detector\n\ndetector = Detector({weights!r})\n"
              f"detections = detector('IMAGE', threshold={chosen.threshold:g})")
    return shell, python


def _precision_charts(classes: list[ClassRow], curves: CocoCurves) -> list[Chart]:
    """Precision over recall: the mean of all classes, then the classes with the most objects, most first."""
    known = [label for label, row in enumerate(classes) if row.num_objects]
    if not known:
        return []
    most = sorted(known, key=lambda label: -classes[label].num_objects)[:MAX_CHARTS]
    groups = [("mean of all classes", known), *((classes[label].name, [label]) for label in most)]
    return [line_chart(title, "recall", RECALLS, {
        name: curves.precision[index, :, labels, 0].mean(axis=0).tolist() for index, name in SHOWN_IOUS.items()})
        for title, labels in groups]


def _galleries(evaluator: CocoEvaluator, outcomes: Outcomes, threshold: float) -> dict[str, list[ShownImage]]:
    annotations = evaluator.annotations
    worst, good = choose_images(image_counts(outcomes, annotations.image_index, len(annotations.images), threshold))
    return {title: list(show_images(evaluator, images, threshold))
            for title, images in (("Worst", worst), ("Best", good))}


def _provenance(subject: Subject, annotations: Annotations) -> dict[str, str]:
    """Where weights, data and numbers come from."""
    notes = list(subject.detector.info.provenance.items())[:MAX_NOTES]
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return {"weights": subject.weights, **{f"training: {name}": text for name, text in notes},
            "evaluated on": str(annotations.file),
            "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "versions": f"deformable-detr {__version__}, {libraries}, Python {platform.python_version()} "
                        f"({platform.system()}, {platform.machine()})",
            "device": str(subject.detector.device)}


def _settings(subject: Subject) -> dict[str, str]:
    """Groups of settings, one setting a line."""
    groups = {name: "\n".join(f"{key}: {value}" for key, value in asdict(settings).items()) for name, settings in (
        ("Model", subject.detector.config), ("Preprocessing", subject.detector.info.preprocessing))}
    if subject.history and subject.history.settings:
        groups["Settings of the run"] = subject.history.settings
    return groups
