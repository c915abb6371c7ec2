"""COCO metrics of predictions, computed by faster-coco-eval."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Float

from deformable_detr.check.boxes import find_box_faults
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.detections import Detections, ImageSize
from deformable_detr.loading.loader import Batch
from deformable_detr.structures import ImageBatch, Predictions, to_device

if TYPE_CHECKING:
    from rich.table import Table

TOP_K = 100    # of an image's detections COCO counts this many


@dataclass(frozen=True)
class CocoMetrics:
    """The twelve COCO metrics, in [0, 1], and the AP of every class; NaN if there is nothing to find.

    AP is the mean over IoU 0.50, 0.55, ..., 0.95; AR1, AR10 and AR100 are recall with 1, 10 and 100 detections
    an image; small is below 32 x 32 pixels, large from 96 x 96.
    """

    AP: float
    AP50: float
    AP75: float
    AP_small: float
    AP_medium: float
    AP_large: float
    AR1: float
    AR10: float
    AR100: float
    AR_small: float
    AR_medium: float
    AR_large: float
    per_class: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: None stands for NaN."""
        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(number) for key, number in value.items()}
            return None if isnan(value) else value

        return plain(asdict(self))

    def table(self) -> "Table":
        """For the terminal: the twelve metrics, then the classes."""
        from rich.markup import escape
        from rich.table import Table

        numbers = self.to_dict()
        classes = numbers.pop("per_class")
        table = Table("COCO", "")
        for rows, label in ((numbers, "{}"), (classes, "AP of {}")):
            for name, value in rows.items():
                table.add_row(escape(label.format(name)), "-" if value is None else f"{value:.3f}")
            table.add_section()
        return table


@dataclass(frozen=True)
class CocoCurves:
    """What AP is the mean of: precision with up to 100 detections an image, NaN if there is nothing to find."""

    precision: Float[np.ndarray, "10 101 K 4"]  # IoU 0.50..0.95, recall 0..1, classes, sizes: all, small, medium, large

    @property
    def per_class(self) -> Float[np.ndarray, "10 K 4"]:
        """AP at each IoU, of each class, for each size."""
        return self.precision.mean(axis=1)


@dataclass(frozen=True)
class NameMatch:
    """The classes of a model and of a data set, matched by name."""

    classes: tuple[int | None, ...]      # the class in the data set for each class of the model
    only_in_model: tuple[str, ...]       # detections of these are not counted
    only_in_data: tuple[str, ...]        # objects of these count as missed


def match_names(model_names: Sequence[str], data_names: Sequence[str]) -> NameMatch:
    """Match the names of a model's classes to those of a data set. Raises ValueError when none matches."""
    class_of = {name: index for index, name in enumerate(data_names)}
    classes = tuple(class_of.get(name) for name in model_names)
    if all(found is None for found in classes):
        raise ValueError(f"names: expected the model to know a class of the data set, got "
                         f"{_listed(model_names)} in the model and {_listed(data_names)} in the data set")
    return NameMatch(classes, tuple(name for name in model_names if name not in class_of),
                     tuple(name for name in data_names if name not in set(model_names)))


@dataclass(frozen=True)
class CountingLimits:
    """How many objects count as missed, whatever a model detects."""

    max_detections: int         # of an image, which COCO counts
    num_images_beyond: int      # images with more objects
    num_objects_beyond: int     # the objects beyond, in all of them
    num_unfindable: int         # objects without area inside their image, which are not trained on


class CocoEvaluator:
    """Collects the detections of all images of a data set and computes the metrics.

    `names` are the model's class names, by default those of the data set in its order.
    """

    def __init__(self, annotations: Annotations, names: Sequence[str] | None = None) -> None:
        self.annotations = annotations
        self.match = match_names(annotations.names if names is None else names, annotations.names)
        self.found: dict[int, Detections] = {}      # by image id
        self._image_ids = annotations.images.ids.tolist()
        self._known_ids = set(self._image_ids)

    def add(self, image_id: int | str | None, detections: Detections) -> None:
        """Add the detections of one image; a second call for an image replaces the first.

        Raises ValueError for an image that the data set does not list, or a class beyond the model's names.
        """
        if not isinstance(image_id, int) or image_id not in self._known_ids:
            raise ValueError(f"image_id: expected the id of an image in {self.annotations.file}, "
                             f"got {image_id!r}")
        num_classes = len(self.match.classes)
        if len(detections) and not 0 <= detections.labels.min() <= detections.labels.max() < num_classes:
            raise ValueError(f"detections: expected labels in 0..{num_classes - 1}, got "
                             f"{detections.labels.min()}..{detections.labels.max()}")
        self.found[image_id] = detections

    def summarize(self) -> CocoMetrics:
        """The metrics over all images, also over those without detections."""
        return self.count()[0]

    def count(self) -> tuple[CocoMetrics, CocoCurves]:
        """The metrics, and the curves that they are areas under."""
        ground_truth = self._ground_truth()
        found = {**ground_truth, "annotations": self._results()}
        truth, results = (COCO(content, print_function=_quiet) for content in (ground_truth, found))
        counter = COCOeval_faster(truth, results, iouType="bbox", print_function=_quiet)
        counter.run()
        precision = np.where(counter.eval["precision"] > -1, counter.eval["precision"], nan)[..., -1]
        curves = CocoCurves(precision)
        per_class = dict(zip(self.annotations.names, curves.per_class[..., 0].mean(axis=0).tolist(), strict=True))
        numbers = (float(value) if value > -1 else nan for value in counter.stats)
        return CocoMetrics(*numbers, per_class=per_class), curves

    def limits(self) -> CountingLimits:
        """What the annotations make impossible to find, so that a metric of 1 cannot be reached."""
        truth = self.annotations
        of_image = np.bincount(truth.image_index[~truth.crowd], minlength=len(truth.images))
        beyond = (of_image - TOP_K).clip(0)
        num_things = int((~truth.crowd).sum())
        return CountingLimits(TOP_K, int((beyond > 0).sum()), int(beyond.sum()),
                      num_things - int(find_box_faults(truth).usable.sum()))

    def _ground_truth(self) -> dict[str, Any]:
        """In COCO's format. Images keep their ids, whose order decides between equal scores; annotations are numbered
        from 1, since faster-coco-eval takes 0 for "no match"."""
        truth = self.annotations
        columns = (truth.image_index, truth.labels, truth.boxes, truth.areas, truth.crowd)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return {
            "images": [{"id": identity} for identity in self._image_ids],
            "categories": [{"id": label, "name": name} for label, name in enumerate(truth.names)],
            "annotations": [{"id": number, "image_id": self._image_ids[image], "category_id": label,
                             "bbox": box, "area": area, "iscrowd": int(crowd)}
                            for number, (image, label, box, area, crowd) in enumerate(rows, start=1)]}

    def _results(self) -> list[dict[str, Any]]:
        results = []
        for image_id, detections in self.found.items():
            boxes = np.asarray(detections.boxes, np.float64).reshape(-1, 4)
            sizes = boxes[:, 2:] - boxes[:, :2]
            for label, score, corner, size in zip(detections.labels.tolist(), detections.scores.tolist(),
                                                  boxes[:, :2].tolist(), sizes.tolist(), strict=True):
                known = self.match.classes[label]
                if known is not None:
                    results.append({"id": len(results) + 1, "image_id": image_id, "category_id": known,
                                    "bbox": corner + size, "area": size[0] * size[1], "iscrowd": 0,
                                    "score": score})
        return results


def detect_all(model: Callable[[ImageBatch], Predictions], loader: Iterable[Batch], annotations: Annotations, *,
               names: Sequence[str] | None = None, nms_threshold: float = 1.0,
               device: torch.device | str = "cpu") -> CocoEvaluator:
    """Run a model in its current mode on the batches of `annotations`, and collect its detections.

    As a `Detector`'s, their boxes end at the edges of the image. `names` are the model's class names, by default those
    of the data set in its order. Raises ValueError for predictions that are not finite.
    """
    evaluator = CocoEvaluator(annotations, names)
    sizes: dict[Any, ImageSize] = {image.id: image.size for image in annotations.images}
    with torch.inference_mode():
        for batch, targets in loader:
            predictions = model(to_device(batch, device))
            found = predictions.detections([sizes[target.image_id] for target in targets], TOP_K,
                                           nms_threshold=nms_threshold)
            for target, detections in zip(targets, found, strict=True):
                evaluator.add(target.image_id, detections.clipped())
    return evaluator


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")


def _quiet(*_: object) -> None:
    """Instead of faster-coco-eval's printing: standard output belongs to the caller."""
