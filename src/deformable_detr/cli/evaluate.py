"""`ddetr eval`: the COCO metrics of weights on a data set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from deformable_detr.cli.app import (
    USUAL,
    BatchSize,
    JsonFlag,
    LocalPath,
    MessageFlags,
    OptionalCount,
    OptionalPath,
    PrecisionFlag,
    TilesFlag,
    WrongCallError,
    app,
    find_weights_file,
    output_console,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.cli.outputs import report_file
from deformable_detr.weights.names import named
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    from deformable_detr.datasets.folder import DataFolder
    from deformable_detr.evaluation import CocoEvaluator, CocoMetrics
    from deformable_detr.report import History


@app.command(name="eval")
def evaluate(data: LocalPath, /, *, weights: str = DEMO, split: str = "val", device: str = "auto",
             precision: PrecisionFlag = "fp32", batch_size: BatchSize = "auto",
           tiles: TilesFlag = False,
           tile_size: OptionalCount = None, report: OptionalPath = None,
             as_json: JsonFlag = False, messages: MessageFlags = USUAL) -> int:
    """Compute the COCO metrics of weights on a data set.

    Parameters
    ----------
    data
        The folder of a data set: COCO, YOLO, Pascal VOC, LabelMe, CVAT, parquet, imagefolder, or WebDataset.
    weights
        "demo" for the packaged ones, a name that `ddetr weights` lists, "hf:owner/name", a file or a folder.
    split
        Which of the data set's splits.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps", ...
    precision
        "fp32", "bf16" or "fp16" for the heavy products; "auto" takes bf16 where that is faster, and says so.
    batch_size
        Images at a time, of those that have one shape; "auto" for what does not slow this device down.
    tiles
        Also look at overlapping windows of each image, for objects that are small in it; takes longer.
    tile_size
        The side of these windows in pixels of the image; by default the size that images are resized to.
    report
        Also write a page about the results: to this file, if its name ends in .html, or into this folder.
    as_json
        Print one object of JSON, and nothing else.
    """
    messages.start()
    with wrong_call_for(OSError):
        page = report_file(report) if report else None
    weights_file = find_weights_file(weights)

    with wrong_call_for(ValueError, OSError):
        folder, split = find_split(data, split)

    from deformable_detr.datasets.findings import DataError
    from deformable_detr.detect.detector import Detector
    from deformable_detr.detect.evaluating import evaluate as evaluated
    from deformable_detr.evaluation import match_names
    from deformable_detr.loading.dataset import DetectionDataset
    from deformable_detr.report import Subject, write_report

    with wrong_call_for(ValueError, OSError):
        detector = Detector(weights_file, device, precision=precision, batch_size=batch_size,
                            tile=tile_size or tiles)
        dataset = DetectionDataset(folder, split, progress=messages.progress)
        match_names(detector.names, dataset.names)
    try:
        evaluator = evaluated(detector, dataset, messages.progress)
    except (ValueError, MemoryError) as error:
        report_error(str(error))
        return 1
    report_limits(evaluator)
    metrics, curves = evaluator.count()
    if as_json:
        print_line(json.dumps(metrics.to_dict()))
    else:
        _print_metrics(metrics, weights)
    if page:
        try:
            write_report(page, Subject(detector, weights, evaluator, _history(weights)), metrics, curves)
        except (DataError, OSError) as error:
            report_error(f"no report: {error}")
            return 1
        if not as_json:
            print_line(f"report: {page}")
    return 0


def _print_metrics(metrics: "CocoMetrics", weights: str) -> None:
    """The table, and for published weights what their authors measured."""
    output_console().print(metrics.table())
    published = named(weights)
    if published:
        print_line(f"published on COCO val2017: AP {published.ap / 100:.3f}")


def find_split(data: Path, name: str) -> "tuple[DataFolder, str]":
    """The data set and one of its splits, by our name for it or any other usual one ("valid"), without torch."""
    from deformable_detr.datasets.folder import DataFolder
    from deformable_detr.datasets.splits import SPLIT_NAMES

    folder = DataFolder(data)
    split = SPLIT_NAMES.get(name.lower(), name)
    if split not in folder.splits:
        raise WrongCallError(f"{data}: no split {name!r}; the {folder.source.format} data set there has "
                             f"{', '.join(folder.splits)}")
    return folder, split


def report_limits(evaluator: "CocoEvaluator") -> None:
    """Print what counts as missed, or is not counted, whatever the weights find."""
    match, limits = evaluator.match, evaluator.limits()
    if match.only_in_model:
        names = ", ".join(dict.fromkeys(match.only_in_model))     # COCO's 91 have eleven times "N/A"
        report_error(f"only the weights know these classes, which are not counted: {names}")
    if match.only_in_data:
        report_error("only the data set knows these classes, which count as missed: " + ", ".join(match.only_in_data))
    if limits.num_images_beyond:
        report_error(f"COCO counts the {limits.max_detections} best detections of an image; images with more objects: "
                     f"{limits.num_images_beyond}, objects beyond, which count as missed: {limits.num_objects_beyond}")
    if limits.num_unfindable:
        report_error(f"objects without area inside their image: {limits.num_unfindable}; training leaves them out, "
                     "here they count as missed, as with pycocotools")


def _history(weights: str) -> "History | None":
    """The curves of the run whose folder holds the weights."""
    from deformable_detr.report import read_history

    try:
        return read_history(Path(weights).parent) if Path(weights).is_file() else None
    except ValueError as error:
        report_error(f"the report will show no curves: {error}")
        return None
