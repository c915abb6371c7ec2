"""The page about a training that has ended."""

import logging

from deformable_detr.detect.detector import Detector
from deformable_detr.evaluation import detect_all
from deformable_detr.loading.loader import build_loader
from deformable_detr.progress import show_progress
from deformable_detr.report import FILE_NAME, Subject, read_history, write_report
from deformable_detr.training.loop import Training

logger = logging.getLogger(__name__)


def report_run(training: Training) -> None:
    """Write a page about the best weights into the run folder; call it in the first process, when all is trained.

    The weights are read from their file and evaluated once more: what the page says is what users of the file get.
    A failure is logged with its reason and takes nothing from the run.
    """
    folder, recipe = training.folder, training.recipe
    page = folder.path / FILE_NAME
    try:
        detector = Detector(folder.best, str(training.accelerator.device))
        loader = build_loader(training.validation_data, recipe.batch_size, training=False,
                              num_workers=recipe.num_workers)
        evaluator = detect_all(detector.model, loader,
                               progress=lambda batches: show_progress(batches, len(loader), "report"))
        subject = Subject(detector, str(folder.best), training.validation_data, evaluator, read_history(folder.path))
        write_report(page, subject, *evaluator.count())
    except Exception as error:   # whatever it is, the weights are there
        logger.warning("no %s: %s: %s", page, type(error).__name__, " ".join(str(error).split()))
    else:
        logger.info("report: %s", page)
