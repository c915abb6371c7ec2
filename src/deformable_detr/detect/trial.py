"""What an export in int8 needs of a data set: images to calibrate on, and the AP of the detector and of its file."""

from collections.abc import Iterator
from pathlib import Path

from deformable_detr.datasets.folder import DataFolder
from deformable_detr.detect.batches import Pixels
from deformable_detr.detect.detector import Detector
from deformable_detr.detect.evaluating import evaluate
from deformable_detr.evaluation import match_names
from deformable_detr.export.quantising import Trial
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.progress import Progress, no_progress

MOST_IMAGES = 200   # to calibrate on: more change the ranges little


def int8_trial(detector: Detector, data: str | Path, max_ap_loss: float = 0.005,
               progress: Progress = no_progress) -> Trial:
    """Calibration on images spread evenly over the training split, AP on the validation split.

    Raises ValueError if the data set lacks one, or knows none of the detector's classes.
    """
    if not 0 <= max_ap_loss <= 1:
        raise ValueError(f"max_ap_loss: expected a value in [0, 1], got {max_ap_loss}")
    folder = DataFolder(data)
    missing = [split for split in ("train", "val") if split not in folder.splits]
    if missing:
        raise ValueError(f"data: expected the splits train, to calibrate on, and val, to count on; {data} has no "
                         f"{' and no '.join(missing)}")
    training, validation = (DetectionDataset(folder, split) for split in ("train", "val"))
    match_names(detector.names, validation.names)

    def count(path: Path | None) -> float:
        tried = detector if path is None else Detector(path, "cpu", precision="fp32")
        return evaluate(tried, validation, progress).count()[0].AP

    return Trial(_spread(training), count, max_ap_loss)


def _spread(images: DetectionDataset) -> Iterator[Pixels]:
    step = max(1, len(images) / MOST_IMAGES)
    for place in range(min(len(images), MOST_IMAGES)):
        yield images.image(int(place * step))
