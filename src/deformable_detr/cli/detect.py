"""`ddetr detect`: images and videos in, drawings and JSON out."""

import json
import logging
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from deformable_detr.cli.app import (
    USUAL,
    BatchSize,
    Count,
    JsonFlag,
    MessageFlags,
    OptionalCount,
    OptionalPath,
    PrecisionFlag,
    TilesFlag,
    WrongCallError,
    app,
    find_weights_file,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.cli.inputs import find_inputs, readable
from deformable_detr.cli.outputs import Drawings
from deformable_detr.cli.results import ClassesFlag, CropFlag, Results, SaveFlag, ThresholdFlag
from deformable_detr.text import printable
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    import numpy as np

    from deformable_detr.cli.clips import ClipReport
    from deformable_detr.cli.items import Item
    from deformable_detr.detect.batches import Found, Read
    from deformable_detr.detect.detector import Detector
    from deformable_detr.detect.results.saving import Saving
    from deformable_detr.detections import Detections, Threshold

logger = logging.getLogger(__name__)


@app.command
def detect(sources: list[str], /, *, weights: str = DEMO, threshold: ThresholdFlag = None,
           classes: ClassesFlag = None, top_k: Count = 100, out: OptionalPath = None, save: SaveFlag = None,
           crop: CropFlag = False, as_json: JsonFlag = False, device: str = "auto",
           precision: PrecisionFlag = "fp32", batch_size: BatchSize = "auto", tiles: TilesFlag = False,
           tile_size: OptionalCount = None, every: Count = 1,
           track: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
           messages: MessageFlags = USUAL) -> int:
    """Find objects in images and videos.

    Parameters
    ----------
    sources
        Images, videos, folders of them, globs, http(s) addresses, addresses of streams (rtsp://...), or "-" for
        standard input.
    weights
        "demo" for the packaged ones, a name that `ddetr weights` lists, "hf:owner/name", a file or a folder.
    threshold
        The lowest score of a detection, from 0 to 1, or for some classes, as in cat=0.5,dog=0.3; by default the one
        kept with the weights.
    classes
        Only these, as in cat,dog.
    top_k
        The most detections in an image; the best are kept.
    out
        The folder for what is written; by default "detections", with --json alone nothing is.
        Drawings of an earlier call are replaced, other files never: a drawing whose name is taken gets a number.
    save
        What is written, as in coco,csv; by default drawings, images and videos with their detections drawn in.
        json: detections.jsonl, the lines of --json. csv: detections.csv, a row for each detection. coco: coco/, COCO's
        results and the images that they are about. yolo: yolo/, a data set with copies of the images and a score at the
        end of each label. voc: voc/, the same as Pascal VOC. labels: labels/, to correct in CVAT or Label Studio.
        Results are never overwritten.
    crop
        Also write each object as an image, to crops/CLASS/.
    as_json
        Print a line of JSON for each image and each frame, and nothing else.
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
    every
        Of a video, one frame in this many.
    track
        Number the objects in a video, so that one has the same number in all frames.
    """
    messages.start()
    if track:
        _check_tracking()
    weights_file = find_weights_file(weights)
    results = Results.asked_for(out, save, crop=crop, as_json=as_json)
    inputs = find_inputs(sources, every)
    drawings = Drawings(results.folder, readable(inputs)) if results.folder and results.draws else None

    from deformable_detr.cli.items import items_of

    items = items_of(inputs, every)
    problems, first = _leading_problems(items)
    for item in problems:
        _report_problem(item, as_json)
    if first is None:
        return 1

    from deformable_detr.detect.detector import Detector

    with wrong_call_for(ValueError):
        detector = Detector(weights_file, device, precision=precision, batch_size=batch_size,
                            tile=tile_size or tiles)
        thresholds = detector.thresholds(threshold, classes)
    logger.debug("%s: %r", weights, detector)
    counts = [entry.num_frames for entry in inputs]
    total = None if None in counts else sum(filter(None, counts)) - len(problems)
    with results.saving(detector.info, inputs) as saving, \
            _Job(detector, thresholds, top_k, drawings, as_json, track, saving, results.need_images) as job:
        for item, found in messages.progress(job.found(chain([first], items)), total, "detecting", job.status):
            job.take(item, found)
    job.report_limits()
    results.log()
    return 1 if problems or job.failed else 0


def _check_tracking() -> None:
    try:
        import trackers  # noqa: F401
    except ImportError as error:
        raise WrongCallError(f"--track: needs the library trackers ({error}): "
                             "pip install 'deformable-detr[video-track]'") from error


def _leading_problems(items: "Iterator[Item]") -> "tuple[list[Item], Item | None]":
    """The items before the first in which something can be found, and that one: before the weights are loaded."""
    problems: list[Item] = []
    for item in items:
        if item.read is not None or item.clip is not None:
            return problems, item
        problems.append(item)
    return problems, None


def _report_problem(item: "Item", as_json: bool) -> None:
    assert item.problem is not None
    report_error(item.problem)
    if as_json:
        print_line(json.dumps({"file": item.name, **item.place, "error": item.problem}))


@dataclass
class _Job:
    """What is done with each image."""

    detector: "Detector"
    threshold: "Threshold"
    top_k: int
    drawings: Drawings | None
    as_json: bool
    track: bool
    saving: "Saving | None"
    keep_images: bool
    failed: bool = False
    clip: "ClipReport | None" = None                            # whose frames come now
    first_cut: str = ""                                         # file of an image with more than `top_k` detections
    num_cut: int = 0                                            # such images
    frames: dict[str, int] = field(default_factory=dict)        # of files with more than one page or frame

    def __enter__(self) -> "_Job":
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        """A video that was interrupted is kept as far as it came: that is how one of a camera ends."""
        if error is None or isinstance(error, KeyboardInterrupt):
            self._enter(None)
        elif self.clip is not None:
            self.clip.discard(error)

    def found(self, items: "Iterator[Item]") -> "Iterator[tuple[Item, Found | None]]":
        """Each item with what is found in it; None for those that have a problem.

        One more than the `top_k` best is asked for, to know whether there are more.
        """
        waiting: deque[Item] = deque()

        def reads() -> "Iterator[Read]":
            for item in items:
                waiting.append(item)
                if item.read is not None:
                    yield item.read

        from deformable_detr.detect.video.tracking import faint

        threshold = faint(self.threshold) if self.track else self.threshold
        results = self.detector.find(reads(), threshold, self.top_k + 1, keep_images=self.keep_images)
        for found in results:
            while waiting[0].read is None:
                yield waiting.popleft(), None
            yield waiting.popleft(), found
        yield from ((item, None) for item in waiting)

    def take(self, item: "Item", found: "Found | None") -> None:
        """Report an item, and its problem if there is one."""
        self._enter(item)
        problem = self.report(item, found)
        if problem is None:
            return
        self.failed = True
        if self.as_json:
            print_line(json.dumps({"file": item.name, **item.place, "error": problem}))
        if self.clip is None:
            report_error(problem)
        else:
            self.clip.add_broken(item, problem)

    def status(self) -> str:
        """For the progress: how fast the frames of a video go."""
        return "" if self.clip is None else f"{self.clip.rate:.1f} frames/s"

    def report(self, item: "Item", found: "Found | None") -> str | None:
        """Draw and print; the problem in one line, or None."""
        from deformable_detr.detections import Detections
        from deformable_detr.images import ImageError

        if found is None:
            return item.problem
        try:
            if not isinstance(found.result, Detections):
                raise found.result
            detections = self._limited(found.result, item)
            drawn = self._write(detections, found.image, item)
        except ImageError as error:
            return str(error)
        except (ValueError, MemoryError) as error:
            return f"{item.name}: {error}"
        except OSError as error:
            return f"{item.name}: cannot write its detections ({error})"
        if self.as_json:
            category_ids = self.detector.info.category_ids
            print_line(json.dumps({"file": item.name, **item.place, **detections.to_dict(category_ids)}))
        elif self.clip is None:
            where = "" if drawn is None else f" -> {drawn}"
            print_line(printable(f"{item.name}: {_summary(detections)}{where}"))
        return None

    def _write(self, detections: "Detections", image: "np.ndarray | None", item: "Item") -> Path | None:
        """Draw and save; where the drawing is, if the image has one of its own. Raises OSError."""
        assert item.path is not None
        drawn = None
        if self.clip is not None:
            self.clip.add(detections, image, item)
        elif self.drawings is not None:
            assert image is not None
            drawn = self.drawings.write(detections.draw(image), item.path)
        if self.saving is not None:
            self.saving.add(item.name, item.path, detections, image=image, is_file=item.is_file, place=item.place)
        return drawn

    def _enter(self, item: "Item | None") -> None:
        """Finish the video before, and start the one that the item is a frame of."""
        clip = None if item is None else item.clip
        if self.clip is not None and self.clip.clip is not clip:
            self.clip.finish()
            self.failed |= self.clip.failed
            self.clip = None
        if self.clip is None and item is not None and clip is not None:
            from deformable_detr.cli.clips import ClipReport
            from deformable_detr.detect.video import Tracker

            tracker = Tracker(self.threshold, clip.rate) if self.track else None
            self.clip = ClipReport(item.name, clip, self.drawings, tracker, prints=not self.as_json)

    def _limited(self, found: "Detections", item: "Item") -> "Detections":
        """The `top_k` best; what is left out of the image is kept for `report_limits`."""
        if self.clip is not None:
            found = self.clip.tracked(found, item)
        elif self.track:
            found = found.above(self.threshold)
        if len(found) > self.top_k:
            self.num_cut += 1
            self.first_cut = self.first_cut or item.name
        if item.further_frames:
            self.frames[item.name] = item.further_frames
        return found[:self.top_k]

    def report_limits(self) -> None:
        """Log what the results do not show."""
        if self.num_cut:
            logger.warning("%s: only the %d best detections are given (images with more: %d); --top-k sets the number",
                           self.first_cut, self.top_k, self.num_cut)
        if self.frames:
            logger.warning("%s: only the first page or frame is used (files with more: %d, left out: %d)",
                           next(iter(self.frames)), len(self.frames), sum(self.frames.values()))


def _summary(detections: "Detections") -> str:
    found = Counter(detections.names).most_common()
    return ", ".join(f"{number} {name}" for name, number in found) or "nothing found"
