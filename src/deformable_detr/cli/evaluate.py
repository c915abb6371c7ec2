"""`ddetr eval`: how good are weights on a data set?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from deformable_detr.cli.app import (
    JsonFlag,
    app,
    check_weights_exist,
    log_to_stderr,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.progress import show_progress

if TYPE_CHECKING:
    from deformable_detr.report import History


@app.command(name="eval")
def evaluate(data: Path, /, *, weights: str = "demo", split: str = "val",
             batch_size: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 4,
             device: str = "auto", report: Path | None = None, as_json: JsonFlag = False) -> int:
    """Count the COCO numbers of weights on a data set.

    Parameters
    ----------
    data
        The folder of a data set: COCO, YOLO, Pascal VOC, parquet, or WebDataset.
    weights
        "demo" for the packaged ones, a file, or "hf:owner/name".
    split
        Which of the data set's splits.
    batch_size
        Images at a time.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps", ...
    report
        Write a page about it too: to this file, if its name ends in .html, or into this folder.
    as_json
        Print one object of JSON, and nothing else.
    """
    log_to_stderr()
    check_weights_exist(weights)

    from deformable_detr.datasets.findings import DataError
    from deformable_detr.detect.detector import Detector
    from deformable_detr.evaluation import detect_all, match_names
    from deformable_detr.loading.dataset import DetectionDataset
    from deformable_detr.loading.loader import build_loader
    from deformable_detr.loading.transforms import eval_transform
    from deformable_detr.report import Subject, report_file, write_report

    with wrong_call_for(ValueError, OSError):
        page = report_file(report) if report else None
        detector = Detector(weights, device)
        dataset = DetectionDataset(data, split, eval_transform(detector.info.preprocessing))
        match = match_names(detector.names, dataset.names)
    for names, what in ((match.only_in_model, "only the weights know these classes, which are not counted"),
                        (match.only_in_data, "only the data set knows these classes, which count as missed")):
        if names:
            report_error(f"{what}: {', '.join(names)}")
    loader = build_loader(dataset, batch_size, training=False)
    try:
        evaluator = detect_all(detector.model, loader, names=detector.names,
                               progress=lambda batches: show_progress(batches, len(loader), "evaluating"))
    except DataError as error:   # an image: numbers without it would be another data set's
        report_error(str(error))
        return 1
    metrics, curves = evaluator.count()
    if as_json:
        print_line(json.dumps(metrics.to_dict()))
    else:
        from rich.console import Console

        Console().print(metrics.table())
    if page:
        try:
            write_report(page, Subject(detector, weights, dataset, evaluator, _history(weights)), metrics, curves)
        except (DataError, OSError) as error:
            report_error(f"no report: {error}")
            return 1
        if not as_json:
            print_line(f"report: {page}")
    return 0


def _history(weights: str) -> "History | None":
    """The curves of the run in whose folder the weights lie."""
    from deformable_detr.report import read_history

    try:
        return read_history(Path(weights).parent) if Path(weights).is_file() else None
    except ValueError as error:
        report_error(f"the report will show no curves: {error}")
        return None
