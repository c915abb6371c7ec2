"""`ddetr demo`: the packaged detector on the packaged images."""

import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from deformable_detr.cli.app import USUAL, LocalPath, MessageFlags, OptionalShare, app, print_line, wrong_call_for
from deformable_detr.cli.outputs import Drawings, check_folder
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    from deformable_detr.detections import Detections


@app.command
def demo(*, threshold: OptionalShare = None, out: LocalPath = Path("detections"), device: str = "auto",
         messages: MessageFlags = USUAL) -> int:
    """Find sea animals in the packaged images: nothing to download, nothing to prepare.

    Parameters
    ----------
    threshold
        The lowest score of a detection, from 0 to 1; by default the one kept with the weights, 0.5.
    out
        The folder for the images with their detections drawn in.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps", ...
    """
    messages.start()
    check_folder("--out", out)

    from deformable_detr.detect.detector import Detector
    from deformable_detr.images import read_image
    from deformable_detr.weights.sources import packaged_images

    with wrong_call_for(ValueError):
        detector = Detector(DEMO, device)
    with wrong_call_for(OSError):
        out.mkdir(parents=True, exist_ok=True)
        images = packaged_images()
        drawings = Drawings(out, images)
        width = max(len(path.name) for path in images)
        print_line(f"{'image':<{width}}  seconds  found (best score)")
        for path in images:
            image = read_image(path)
            start = time.perf_counter()
            detections = detector(image, threshold)
            seconds = time.perf_counter() - start
            drawings.write(detections.draw(image), path)
            print_line(f"{path.name:<{width}}  {seconds:7.2f}  {_summary(detections)}")
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
