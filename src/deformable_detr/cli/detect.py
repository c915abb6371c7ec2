"""`ddetr detect`: images in, images and JSON out."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deformable_detr.cli.app import (
    USUAL,
    BatchSize,
    Count,
    JsonFlag,
    MessageFlags,
    OptionalPath,
    OptionalShare,
    PrecisionFlag,
    app,
    find_weights_file,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.cli.inputs import Input, find_inputs, further_frames, readable
from deformable_detr.cli.outputs import Drawings, check_folder
from deformable_detr.text import printable
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    from deformable_detr.detect.batches import Found
    from deformable_detr.detect.detector import Detector
    from deformable_detr.detections import Detections

logger = logging.getLogger(__name__)

DRAWINGS = Path("detections")


@app.command
def detect(sources: list[str], /, *, weights: str = DEMO, threshold: OptionalShare = None, top_k: Count = 100,
           out: OptionalPath = None, as_json: JsonFlag = False, device: str = "auto",
           precision: PrecisionFlag = "fp32", batch_size: BatchSize = "auto", messages: MessageFlags = USUAL) -> int:
    """Find objects in images.

    Parameters
    ----------
    sources
        Images, folders of images, or globs.
    weights
        "demo" for the packaged ones, a name that `ddetr weights` lists, "hf:owner/name", a file or a folder.
    threshold
        The lowest score of a detection, from 0 to 1; by default the one kept with the weights, usually 0.5.
    top_k
        The most detections in an image; the best are kept.
    out
        The folder for images with their detections drawn in; by default "detections", with --json none.
        Drawings of an earlier call are replaced, other files never: a drawing whose name is taken gets a number.
    as_json
        Print a line of JSON for each image, and nothing else.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps", ...
    precision
        "fp32", "bf16" or "fp16" for the heavy products; "auto" takes bf16 where that is faster, and says so.
    batch_size
        Images at a time, of those that have one shape; "auto" for what does not slow this device down.
    """
    messages.start()
    weights_file = find_weights_file(weights)
    if out is None and not as_json:
        out = DRAWINGS
    if out is not None:
        check_folder("--out", out)
    inputs = find_inputs(sources)
    drawings = Drawings(out, readable(inputs)) if out else None

    from deformable_detr.detect.detector import Detector

    with wrong_call_for(ValueError):
        detector = Detector(weights_file, device, precision=precision, batch_size=batch_size)
    logger.debug("%s: %r", weights, detector)
    job = _Job(detector, threshold, top_k, drawings, as_json)
    failed = False
    for entry, found in messages.progress(job.found(inputs), len(inputs), "detecting"):
        problem = job.report(entry, found)
        if problem is not None:
            failed = True
            report_error(problem)
            if as_json:
                print_line(json.dumps({"file": entry.name, "error": problem}))
    job.report_limits()
    return 1 if failed else 0


@dataclass
class _Job:
    """What is done with each image."""

    detector: "Detector"
    threshold: float | None
    top_k: int
    drawings: Drawings | None
    as_json: bool
    cut: list[str] = field(default_factory=list)                # images with more than `top_k` detections
    frames: dict[str, int] = field(default_factory=dict)        # of files with more than one page or frame

    def found(self, inputs: Sequence[Input]) -> "Iterator[tuple[Input, Found | None]]":
        """Each input with what is found in it; None for those that name no image.

        One more than the `top_k` best is asked for, to know whether there are more.
        """
        from deformable_detr.images import read_image

        reads = (partial(read_image, path) for path in readable(inputs))
        results = self.detector.find(reads, self.threshold, self.top_k + 1, keep_images=self.drawings is not None)
        for entry in inputs:
            yield entry, None if entry.path is None else next(results)

    def report(self, entry: Input, found: "Found | None") -> str | None:
        """Draw and print; the problem in one line, or None."""
        from deformable_detr.detections import Detections
        from deformable_detr.images import ImageError

        if found is None or entry.path is None:
            return entry.problem
        try:
            if not isinstance(found.result, Detections):
                raise found.result
            detections = self._limited(found.result, entry)
            drawn = None
            if self.drawings is not None:
                assert found.image is not None
                drawn = self.drawings.write(detections.draw(found.image), entry.path)
        except ImageError as error:
            return str(error)
        except (ValueError, MemoryError) as error:
            return f"{entry.name}: {error}"
        except OSError as error:
            return f"{entry.name}: cannot write its detections ({error})"
        if self.as_json:
            category_ids = self.detector.info.category_ids
            print_line(json.dumps({"file": entry.name, **detections.to_dict(category_ids)}))
        else:
            print_line(printable(f"{entry.name}: {_summary(detections)} -> {drawn}"))
        return None

    def _limited(self, found: "Detections", entry: Input) -> "Detections":
        """The `top_k` best; what is left out of the image is kept for `report_limits`."""
        assert entry.path is not None
        if len(found) > self.top_k:
            self.cut.append(entry.name)
        more = further_frames(entry.path)
        if more:
            self.frames[entry.name] = more
        return found[:self.top_k]

    def report_limits(self) -> None:
        """Log what the results do not show."""
        if self.cut:
            logger.warning("%s: only the %d best detections are given (images with more: %d); --top-k sets the number",
                           self.cut[0], self.top_k, len(self.cut))
        if self.frames:
            logger.warning("%s: only the first page or frame is used (files with more: %d, left out: %d)",
                           next(iter(self.frames)), len(self.frames), sum(self.frames.values()))


def _summary(detections: "Detections") -> str:
    found = Counter(detections.names).most_common()
    return ", ".join(f"{number} {name}" for name, number in found) or "nothing found"
