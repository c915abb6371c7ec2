"""What the page shows, under the names that its template uses."""

import math
import platform
import shlex
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from deformable_detr import __version__
from deformable_detr.detect.detector import Detector
from deformable_detr.evaluation import CocoCurves, CocoEvaluator, CocoMetrics
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.report.classes import ClassRow, SizeRow, class_rows, size_rows
from deformable_detr.report.confusion import Confusion, confusion
from deformable_detr.report.errors import ErrorKind, Outcomes, count_errors, judge
from deformable_detr.report.gallery import Shown, choose, show
from deformable_detr.report.history import History
from deformable_detr.report.plots import Plot, plot
from deformable_detr.report.thresholds import CANDIDATES, AtThreshold, at_thresholds, best, image_counts

MAX_PLOTS = 24      # of classes; the table has all of them
MAX_NOTES = 40      # that weights bring with them
SHOWN_IOUS = {0: "IoU 0.50", 5: "IoU 0.75", 8: "IoU 0.90"}
RECALLS = np.linspace(0, 1, 101).tolist()
CURVES = {"loss": ("loss",), "AP": ("AP", "AP50", "AP75"), "parts of the loss": ("loss_ce", "loss_bbox", "loss_giou")}
PACKAGES = ("torch", "torchvision", "timm", "faster-coco-eval", "numpy")


@dataclass(frozen=True)
class Subject:
    """What a report is about: a detector, what it found in a data set, and where both come from."""

    detector: Detector
    weights: str                # as `--weights` takes them
    data: DetectionDataset
    evaluator: CocoEvaluator
    history: History | None = None


@dataclass(frozen=True)
class Content:
    """The page's parts, from its top to its end."""

    weights: str
    data: str
    num_images: int
    num_objects: int
    headline: dict[str, float]
    unmatched: dict[str, tuple[str, ...]]               # classes, by what became of them
    chosen: AtThreshold
    commands: tuple[str, str]
    thresholds: list[AtThreshold]
    threshold_plot: Plot
    classes: list[ClassRow]
    sizes: list[SizeRow]
    precision_plots: list[Plot]
    confusion: Confusion
    errors: list[ErrorKind]
    galleries: dict[str, list[Shown]]
    has_crowds: bool
    training_plots: list[Plot]
    provenance: dict[str, str]
    settings: dict[str, str]


def build_content(subject: Subject, metrics: CocoMetrics, curves: CocoCurves) -> Content:
    """Count and draw everything. Raises DataError for an image that cannot be read."""
    evaluator, annotations = subject.evaluator, subject.data.annotations
    outcomes = judge(evaluator)
    thresholds = at_thresholds(outcomes)
    chosen = best(thresholds)
    classes = class_rows(annotations, curves, outcomes)
    return Content(
        weights=subject.weights,
        data=str(subject.data.annotations.file),
        num_images=len(annotations.images),
        num_objects=int(outcomes.counted.sum()),
        headline={name.replace("_", " "): value for name, value in asdict(metrics).items() if name != "per_class"},
        unmatched={"Only the weights know these classes, which are not counted": evaluator.match.only_in_model,
                   "Only the data set knows these classes, which count as missed": evaluator.match.only_in_data},
        chosen=chosen,
        commands=_commands(subject.weights, chosen),
        thresholds=[at for at in thresholds if at is chosen or (_is_round(at.threshold) and at.right + at.wrong)],
        threshold_plot=plot("by threshold", "score", CANDIDATES.tolist(), {
            "precision": [at.precision for at in thresholds], "recall": [at.recall for at in thresholds],
            "F1": [at.f1 for at in thresholds]}),
        classes=classes,
        sizes=size_rows(annotations, metrics),
        precision_plots=_precision_plots(classes, curves),
        confusion=confusion(evaluator, chosen.threshold),
        errors=count_errors(outcomes),
        galleries=_galleries(subject, outcomes, chosen.threshold),
        has_crowds=bool(annotations.crowd.any()),
        training_plots=_training_plots(subject.history) if subject.history else [],
        provenance=_provenance(subject),
        settings=_settings(subject))


def _is_round(threshold: float) -> bool:
    return round(100 * threshold) % 5 == 0


def _commands(weights: str, chosen: AtThreshold) -> tuple[str, str]:
    """How to find objects with these weights, in a shell and in Python."""
    shell = f"ddetr detect IMAGE --weights {shlex.quote(weights)} --threshold {chosen.threshold:g}"
    python = (f"from deformable_detr import Detector\n\ndetector = Detector({weights!r})\n"
              f"detections = detector('IMAGE', threshold={chosen.threshold:g})")
    return shell, python


def _precision_plots(classes: list[ClassRow], curves: CocoCurves) -> list[Plot]:
    """Precision over recall: the mean of all classes, then those with the most objects, most first."""
    known = [label for label, row in enumerate(classes) if row.num_objects]
    if not known:
        return []
    most = sorted(known, key=lambda label: -classes[label].num_objects)[:MAX_PLOTS]
    groups = [("mean of all classes", known), *((classes[label].name, [label]) for label in most)]
    return [plot(title, "recall", RECALLS, {
        name: curves.precision[index, :, labels, 0].mean(axis=0).tolist() for index, name in SHOWN_IOUS.items()})
        for title, labels in groups]


def _galleries(subject: Subject, outcomes: Outcomes, threshold: float) -> dict[str, list[Shown]]:
    annotations = subject.data.annotations
    counts = image_counts(outcomes, annotations.image_index, len(annotations.images), threshold)
    worst, good = choose(counts)
    return {title: list(show(subject.evaluator, subject.data, images, threshold))
            for title, images in (("Worst", worst), ("Best", good))}


def _training_plots(history: History) -> list[Plot]:
    """Losses and AP over the epochs, as far as the run has noted them."""
    plots = []
    for title, names in CURVES.items():
        lines = {name: history.columns[name] for name in names if name in history.columns}
        if lines:
            # Never quite 0: an axis needs an extent.
            highest = max((value for values in lines.values() for value in values if math.isfinite(value)), default=0)
            plots.append(plot(title, "epoch", history.epochs, lines, x_end=max(5, *history.epochs),
                              y_end=max(highest, 0.01)))
    return plots


def _provenance(subject: Subject) -> dict[str, str]:
    """Where weights, data and numbers come from."""
    notes = list(subject.detector.info.provenance.items())[:MAX_NOTES]
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {"weights": subject.weights, **{f"trained: {name}": text for name, text in notes},
            "evaluated on": str(subject.data.annotations.file),
            "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "versions": f"deformable-detr {__version__}, {packages}, Python {platform.python_version()} "
                        f"({platform.system()}, {platform.machine()})",
            "device": str(subject.detector.device)}


def _settings(subject: Subject) -> dict[str, str]:
    """Groups of settings, a line each."""
    groups = {name: "\n".join(f"{key}: {value}" for key, value in asdict(settings).items()) for name, settings in (
        ("Model", subject.detector.model.config), ("Preprocessing", subject.detector.info.preprocessing))}
    if subject.history and subject.history.settings:
        groups["The run's settings"] = subject.history.settings
    return groups
