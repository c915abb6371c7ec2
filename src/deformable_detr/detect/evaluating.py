"""A detector's COCO metrics on a data set: of the very detections that it gives for each image."""

from collections.abc import Iterable
from contextlib import closing
from functools import partial

from deformable_detr.detect.detector import Detector
from deformable_detr.detections import Detections
from deformable_detr.evaluation import TOP_K, CocoEvaluator
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.progress import Progress, no_progress


def evaluate(detector: Detector, dataset: DetectionDataset, progress: Progress = no_progress) -> CocoEvaluator:
    """Collect the detections in all images of a split, whatever their score.

    Raises ValueError for an image that cannot be read or whose predictions are not finite, MemoryError for one that is
    too large: metrics without an image would be another data set's.
    """
    images = dataset.annotations.images
    evaluator = CocoEvaluator(dataset.annotations, detector.names)
    reads = (partial(dataset.image, index) for index in range(len(images)))
    with closing(detector.find(reads, 0, TOP_K)) as results:
        pairs: Iterable[tuple] = zip(images, results, strict=True)
        for image, found in progress(pairs, len(images), "evaluating"):
            if not isinstance(found.result, Detections):
                raise found.result
            evaluator.add(image.id, found.result)
    return evaluator
