"""The report of a finished training run, and the score threshold that its weights keep."""

import logging
from dataclasses import replace
from pathlib import Path

from deformable_detr.detect.detector import Detector
from deformable_detr.evaluation import CocoEvaluator, detect_all
from deformable_detr.loading.loader import build_loader
from deformable_detr.progress import Progress, no_progress
from deformable_detr.report import Subject, read_history, write_report
from deformable_detr.report.errors import judge
from deformable_detr.report.history import REPORT_FILE
from deformable_detr.report.thresholds import at_thresholds, best
from deformable_detr.training.loop import Training
from deformable_detr.weights import save

logger = logging.getLogger(__name__)


def report_run(training: Training, progress: Progress = no_progress) -> None:
    """Write a report on the best weights into the run folder; to be called by the first process after the training.

    The weights are read from their file and evaluated once more: the page shows what users of the file get. The best
    threshold, by which they are then used where nothing else is asked for, is kept with them.
    If this fails, the reason is logged, and the rest of the run folder is not affected.
    """
    folder, recipe, data = training.folder, training.recipe, training.validation_data
    page = folder.path / REPORT_FILE
    try:
        detector = Detector(folder.best, str(training.accelerator.device))
        loader = build_loader(data, recipe.batch_size, training=False, num_workers=recipe.num_workers)
        evaluator = detect_all(detector.runtime.run, progress(loader, len(loader), "report"), data.annotations,
                               names=detector.names, nms_threshold=detector.info.postprocessing.nms_threshold)
        _keep_threshold(folder.best, detector, evaluator)
        subject = Subject(detector, str(folder.best), evaluator, read_history(folder.path))
        write_report(page, subject, *evaluator.count())
    except Exception as error:   # whatever it is, the weights are there
        logger.warning("no %s: %s: %s", page, type(error).__name__, " ".join(str(error).split()))
    else:
        logger.info("report: %s", page)


def _keep_threshold(path: Path, detector: Detector, evaluator: CocoEvaluator) -> None:
    """Write the weights anew with the threshold of the highest F1; where no detection is right, none is better."""
    outcomes = judge(evaluator)
    chosen = best(at_thresholds(outcomes, int(outcomes.counted.sum())))
    if not chosen.right:
        return
    info = detector.info
    save(path, detector.model, replace(info, postprocessing=replace(info.postprocessing, threshold=chosen.threshold)))
    logger.info("score threshold %.2f (F1 %.2f on the validation images), kept in %s", chosen.threshold, chosen.f1,
                path)
