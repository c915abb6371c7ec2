"""`ddetr demo`: the packaged detector on the packaged images."""

import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deformable_detr.cli.app import (
    USUAL,
    BatchSize,
    LocalPath,
    MessageFlags,
    OptionalShare,
    PrecisionFlag,
    app,
    print_line,
    wrong_call_for,
)
from deformable_detr.cli.outputs import Drawings, check_folder
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    from deformable_detr.detections import Detections


@app.command
def demo(*, threshold: OptionalShare = None, out: LocalPath = Path("detections"), device: str = "auto",
         precision: PrecisionFlag = "fp32", batch_size: BatchSize = 1, messages: MessageFlags = USUAL) -> int:
    """Find sea animals in the packaged images: nothing to download, nothing to prepare.

    Parameters
    ----------
    threshold
        The lowest score of a detection, from 0 to 1; by default the one kept with the weights, 0.5.
    out
        The folder for the images with their detections drawn in.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps", ...
    precision
        "fp32", "bf16" or "fp16" for the heavy products; "auto" takes bf16 where that is faster, and says so.
    batch_size
        Images at a time, of those that have one shape; the first of a batch then shows the seconds of all.
    """
    messages.start()
    check_folder("--out", out)

    from deformable_detr.detect.detector import Detector
    from deformable_detr.detections import Detections
    from deformable_detr.images import read_image
    from deformable_detr.weights.sources import packaged_images

    with wrong_call_for(ValueError):
        detector = Detector(DEMO, device, precision=precision, batch_size=batch_size)
    with wrong_call_for(OSError):
        out.mkdir(parents=True, exist_ok=True)
        images = packaged_images()
        drawings = Drawings(out, images)
        found = detector.find((partial(read_image, path) for path in images), threshold, keep_images=True)
        width = max(len(path.name) for path in images)
        print_line(f"{'image':<{width}}  seconds  found (best score)")
        start = time.perf_counter()
        for path, (detections, image) in zip(images, found, strict=True):
            seconds = time.perf_counter() - start
            assert isinstance(detections, Detections)
            assert image is not None
            drawings.write(detections.draw(image), path)
            print_line(f"{path.name:<{width}}  {seconds:7.2f}  {_summary(detections)}")
            start = time.perf_counter()
    print_line(f"\nDrawn into {out.absolute()}")
    print_line("Your own images: ddetr detect photo.jpg; your own classes: ddetr train mydata")
    return 0


def _summary(detections: "Detections") -> str:
    """Each class with its number and its best score, the most frequent first."""
    scores = defaultdict(list)
    for name, score in zip(detections.names, detections.scores.tolist(), strict=True):
        scores[name].append(score)
    found = sorted(scores.items(), key=lambda item: -len(item[1]))
    return ", ".join(f"{len(each)} {name} ({max(each):.2f})" for name, each in found) or "nothing"
