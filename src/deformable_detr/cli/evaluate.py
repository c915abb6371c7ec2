"""`ddetr eval`: how good are weights on a data set?"""

import json
from pathlib import Path
from typing import Annotated

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


@app.command(name="eval")
def evaluate(data: Path, /, *, weights: str = "demo", split: str = "val",
             batch_size: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 4,
             device: str = "auto", as_json: JsonFlag = False) -> int:
    """Count the COCO numbers of weights on a data set.

    Parameters
    ----------
    data
        The folder of a data set: COCO, YOLO, Pascal VOC, or Hugging Face's parquet.
    weights
        "demo" for the packaged ones, a file, or "hf:owner/name".
    split
        Which of the data set's splits.
    batch_size
        Pictures at a time.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps", ...
    as_json
        Print one object of JSON, and nothing else.
    """
    log_to_stderr()
    check_weights_exist(weights)

    from deformable_detr.data import DataError, DetectionDataset, build_loader, eval_transform
    from deformable_detr.detector import Detector
    from deformable_detr.evaluation import evaluate as count
    from deformable_detr.evaluation import match_names

    with wrong_call_for(ValueError):
        detector = Detector(weights, device)
        dataset = DetectionDataset(data, split, eval_transform(detector.info.preprocessing))
        match = match_names(detector.names, dataset.names)
    for names, what in ((match.only_in_model, "only the weights know these classes, which are not counted"),
                        (match.only_in_data, "only the data set knows these classes, which count as missed")):
        if names:
            report_error(f"{what}: {', '.join(names)}")
    loader = build_loader(dataset, batch_size, training=False)
    try:
        metrics = count(detector.model, loader, names=detector.names,
                        progress=lambda batches: show_progress(batches, len(loader), "evaluating"))
    except DataError as error:   # a picture: numbers without it would be another data set's
        report_error(str(error))
        return 1
    if as_json:
        print_line(json.dumps(metrics.to_dict()))
    else:
        from rich.console import Console

        Console().print(metrics.table())
    return 0
