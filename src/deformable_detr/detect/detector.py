"""Images in, detections in their own pixels out."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import PIL.Image
import torch

from deformable_detr.detect.batches import (
    LARGEST_BATCH,
    WINDOW,
    BatchSize,
    Found,
    Pixels,
    Prepared,
    Problem,
    Read,
    check_batch_size,
    find_in_batches,
    fitting_batch_size,
    prepare,
)
from deformable_detr.detect.precision import Precision, check_precision
from deformable_detr.detect.runtimes import Runtime, TorchRuntime, torch_runtime
from deformable_detr.detect.tiles import Tile, Tiling, merged, tiling_of
from deformable_detr.detections import Detections, Threshold
from deformable_detr.images import ImageError, ImageSource, is_single_image, iterate_images, read_image
from deformable_detr.memory import one_memory_error
from deformable_detr.model.network import Network
from deformable_detr.papers import Config
from deformable_detr.preprocessing import normalised
from deformable_detr.structures import ImageBatch, ImageSize, Predictions
from deformable_detr.text import printable, quoted
from deformable_detr.weights import ModelInfo, read_any
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    from deformable_detr.explain.explanation import Explanation
    from deformable_detr.export import Exported, Form
    from deformable_detr.export.quantising import Trial
    from deformable_detr.export.sessions import Target

# A mapping is by the names of classes; None is the threshold of the weights.
AskedThreshold = Threshold | np.floating | Mapping[str, float] | None
UNWANTED = float("inf")     # threshold of a class that was not asked for
SHOWN_NAMES = 7     # of the classes


class Detector:
    """A model and what is known about it, ready for images.

    `weights` is "demo" for those in the package, a short name such as "coco", "hf:owner/name[@revision]" for the
    Hugging Face Hub, or a path: a file of ours or of another code base, a folder of transformers (`read_any`), or a
    file that `export` wrote (.onnx or .xml), for which `device` may also name a device of its runtime.
    `device` "auto" is the GPU if there is one. In `precision` "bf16" or "fp16" heavy products have half the bits;
    "auto" takes bf16 where it is known to be faster, or was in a short measurement, and logs what it took. `batch_size`
    images of one shape are run at a time where there are several. `compile` passes the model through torch.compile.
    With `tile`, an image is also looked at in overlapping windows of so many pixels, for objects that are small in it;
    True takes the size that images are resized to.
    `model` stays as it was loaded and can be saved: images are run through a private copy.
    Raises WeightsError if there are no such weights, ValueError if there is no such device, precision or tiling.
    """

    def __init__(self, weights: str | Path = DEMO, device: str = "auto", *, precision: Precision = "fp32",
                 batch_size: BatchSize = "auto", compile: bool = False,  # noqa: A002  (torch's name)
                 tile: Tile = None) -> None:
        check_precision(precision)
        check_batch_size(batch_size)
        if is_exported(weights):
            self._set_exported(Path(weights), device, precision, batch_size, compile, tile)
            return
        found = _find_device(device)
        model, info = read_any(weights)
        self._set(model.to(found), info, precision, batch_size, compile, tile)

    @classmethod
    def from_model(cls, model: Network, info: ModelInfo, *, precision: Precision = "fp32",
                   batch_size: BatchSize = "auto", compile: bool = False,  # noqa: A002
                   tile: Tile = None) -> "Detector":
        """A detector with the weights that `model` has now, on its device."""
        check_precision(precision)
        check_batch_size(batch_size)
        detector = cls.__new__(cls)
        detector._set(model, info, precision, batch_size, compile, tile)
        return detector

    def _set(self, model: Network, info: ModelInfo, precision: Precision, batch_size: BatchSize,
             compiled: bool, tile: Tile) -> None:
        self._model = model
        self._set_runtime(torch_runtime(model, precision, compiled), info, model.config, batch_size, tile)

    def _set_exported(self, path: Path, device: str, precision: Precision, batch_size: BatchSize, compiled: bool,
                      tile: Tile) -> None:
        from deformable_detr.detect.exported import ExportedRuntime

        if compiled:
            raise ValueError(f"compile: expected False for {path}, which its own runtime compiles")
        self._model = None
        runtime = ExportedRuntime(path, device, precision)
        self._set_runtime(runtime, runtime.info, runtime.config, runtime.form.batch or batch_size, tile)

    def _set_runtime(self, runtime: Runtime, info: ModelInfo, config: Config, batch_size: BatchSize,
                     tile: Tile) -> None:
        self.runtime, self.info, self.config, self.batch_size = runtime, info, config, batch_size
        self.tiling = tiling_of(tile, info.preprocessing.size)
        self.device, self.precision = runtime.device, runtime.precision

    @property
    def model(self) -> Network:
        """The model as it was loaded. Raises ValueError for an exported file."""
        if self._model is None:
            raise ValueError("weights: expected a model of PyTorch; an exported file shows only its results")
        return self._model

    def __repr__(self) -> str:
        info = self.info
        names = ", ".join(map(printable, info.names[:SHOWN_NAMES])) + (", ..." if len(info.names) > SHOWN_NAMES else "")
        before, after = info.preprocessing, info.postprocessing
        nms = "" if after.nms_threshold == 1 else f", NMS above IoU {after.nms_threshold:g}"
        half = "" if self.precision == "fp32" else f" in {self.precision}"
        kind = "an exported file" if self._model is None else type(self._model).__name__
        return (f"Detector({kind} on {self.device}{half}, {len(info.names)} classes: {names}; "
                f"images resized to {before.size}, at most {before.max_size}; threshold {after.threshold:g}{nms})")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class index."""
        return self.info.names

    def thresholds(self, threshold: AskedThreshold = None, classes: Iterable[str] | None = None) -> Threshold:
        """What every method takes as `threshold`, for `classes` alone if they are given.

        In a mapping by the names of classes, those that are missing have the threshold of the weights. Raises
        ValueError for a threshold outside [0, 1] and for unknown classes.
        """
        usual = self.info.postprocessing.threshold
        if isinstance(threshold, np.ndarray):
            if threshold.shape != (len(self.names),):
                raise ValueError(f"threshold: expected one for each class ({len(self.names)}), got {threshold.shape}")
            return threshold
        if threshold is None or isinstance(threshold, int | float | np.floating):
            named: Mapping[str, float] = {}
            usual = _checked_threshold("threshold", usual if threshold is None else float(threshold))
        else:
            named = {name: _checked_threshold(f"threshold of {name}", each) for name, each in threshold.items()}
        wanted = self.names if classes is None else tuple(classes)
        for name in (*named, *wanted):
            if name not in self.names:
                raise ValueError(f"classes: expected some of {quoted(list(self.names))}, got {quoted(name)}")
        if not named and classes is None:
            return usual
        return np.array([named.get(name, usual) if name in wanted else UNWANTED for name in self.names], np.float32)

    @overload
    def __call__(self, source: ImageSource, threshold: AskedThreshold = None, top_k: int = 100) -> Detections: ...

    @overload
    def __call__(self, source: Iterable[ImageSource], threshold: AskedThreshold = None,
                 top_k: int = 100) -> list[Detections]: ...

    def __call__(self, source: ImageSource | Iterable[ImageSource], threshold: AskedThreshold = None,
                 top_k: int = 100) -> Detections | list[Detections]:
        """The detections in an image, or a list of them for an iterable or a batch of images.

        These are the `top_k` best with a score of at least `threshold`, by default the one kept with the weights; a
        mapping gives one for each class by name, and `thresholds(..., classes)` leaves out the other classes.
        An image is anything that `deformable_detr.images.read_image` accepts. Several are run in batches of one shape,
        so that an image's detections do not depend on the others. Raises ImageError for an image that cannot be read,
        ValueError for a threshold outside [0, 1], a `top_k` below 1, or predictions that are not finite, MemoryError
        for an image that is too large.
        """
        if not is_single_image(source):
            with closing(self.stream(source, threshold, top_k)) as results:
                return [_raised(result) for result in results]
        threshold = self._check(threshold, top_k)
        image, = iterate_images(source)
        return replace(self.run([self.prepare(read_image(image))], threshold, top_k)[0], source=_shown(image))

    def stream(self, sources: ImageSource | Iterable[ImageSource], threshold: AskedThreshold = None,
               top_k: int = 100) -> Generator[Detections | Problem]:
        """The detections in each image as they come, in the order of `sources`, of which only a few are held.

        An image that fails has the reason as its result: an ImageError, another ValueError, or a MemoryError. The rest
        goes on; an exception of `sources` itself is raised after the results before it. Files are read in threads,
        which end with the iterator, while the model runs. `sources` is iterated in your thread, where arrays, tensors,
        Pillow images and open files are copied.
        """
        paths: deque[str | Path | None] = deque()

        def reads() -> Iterator[Read]:
            for source in iterate_images(sources):
                paths.append(source if isinstance(source, str | Path) else None)
                yield _reading(source)

        return _results(self.find(reads(), threshold, top_k), paths)

    def find(self, reads: Iterator[Read], threshold: AskedThreshold = None, top_k: int = 100, *,
             keep_images: bool = False) -> Generator[Found]:
        """As `stream`, for functions that return RGB arrays; with `keep_images` these come with the results."""
        threshold = self._check(threshold, top_k)
        largest = self.batch_size if isinstance(self.batch_size, int) else LARGEST_BATCH
        return find_in_batches(
            reads, partial(self.prepare, keep_image=keep_images),
            partial(self.run, threshold=threshold, top_k=top_k), self.batch_size_of, WINDOW * largest)

    def explain(self, source: ImageSource, threshold: AskedThreshold = None, top_k: int = 100) -> "Explanation":
        """The same detections in one image, with the places where the model looked for them in every layer.

        Arguments and errors are those of a call for one image, but with one threshold for all classes.
        """
        from deformable_detr.explain.collecting import Collector
        from deformable_detr.explain.explanation import explain

        checked = self._check(threshold, top_k)
        if isinstance(checked, np.ndarray):
            raise ValueError("threshold: expected one for all classes to explain an image, got one for each class")
        runtime = self.runtime
        if not isinstance(runtime, TorchRuntime):
            raise ValueError("weights: expected a model of PyTorch to explain; an exported file shows only its results")
        image = read_image(source)
        images = [self.prepare(image)]
        with Collector(runtime.model) as collected:
            predictions = runtime.run_watched(self._batch(images))
        found = self._found(predictions, images, checked, top_k)[0]
        name = Path(source).name if isinstance(source, str | Path) else "image"
        return explain(collected, predictions, found, PIL.Image.fromarray(image), name, self.names, checked)

    def export(self, path: str | Path, *, target: "Target | None" = None, form: "Form | None" = None,
               pictures: Iterable[ImageSource] | None = None, trial: "Trial | None" = None,
               report: Callable[[str], None] = lambda _: None) -> "Exported":
        """Write the model for another runtime: .onnx, .xml (OpenVINO) or .pt2 (`torch.export`).

        The file is run beside PyTorch on `pictures`, by default the packaged ones, and left behind only if it answers
        the same; what is returned says how nearly. A file in int8 needs a `trial` (`detect.trial.int8_trial`), and is
        kept only if it passes. `report` is told a line at a time. Needs the extra `export`. Raises ExportError if the
        file would not answer the same or its runtime is missing, ValueError for a path whose suffix does not fit,
        OSError if it cannot be written.
        """
        from deformable_detr.export import export
        from deformable_detr.weights.sources import packaged_images

        chosen = packaged_images() if pictures is None else iterate_images(pictures)
        # Files are read one by one, more than once.
        sources = [each if isinstance(each, str | Path) else read_image(each) for each in chosen]
        return export(self.model, self.info, path, sources, form, target=target, trial=trial, report=report)

    def batch_size_of(self, shape: ImageSize) -> int:
        """How many images of this padded shape are run at a time where there are several."""
        return self.batch_size if isinstance(self.batch_size, int) else fitting_batch_size(shape, self.device)

    def _check(self, threshold: AskedThreshold, top_k: int) -> Threshold:
        """The threshold, by default the one kept with the weights."""
        if top_k < 1:
            raise ValueError(f"top_k: expected at least 1, got {top_k}")
        return self.thresholds(threshold)

    def prepare(self, image: Pixels, keep_image: bool = False) -> Prepared:
        """An RGB image as it waits for `run`; for callers that do this in threads of their own."""
        with one_memory_error():
            return prepare(image, self.info.preprocessing, keep_image=keep_image or self.tiling is not None)

    def run(self, images: Sequence[Prepared], threshold: Threshold, top_k: int) -> list[Detections]:
        """The detections in images of one shape."""
        found = self._found(self.runtime.run(self._batch(images)), images, threshold, top_k)
        if self.tiling is None:
            return found
        return [self._with_windows(self.tiling, image, whole, threshold, top_k)
                for image, whole in zip(images, found, strict=True)]

    def _with_windows(self, tiling: Tiling, image: Prepared, whole: Detections, threshold: Threshold,
                      top_k: int) -> Detections:
        """The detections in the whole image and in its windows, of which few are held at a time."""
        pixels, windows = image.image, tiling.windows(image.size)
        if pixels is None or not windows:
            return whole
        found: list[Detections] = []
        while len(found) < len(windows):
            pieces = [self.prepare(pixels[top:bottom, left:right])
                      for left, top, right, bottom in windows[len(found):][:self.batch_size_of(image.shape)]]
            found += self._found(self.runtime.run(self._batch(pieces)), pieces, threshold, top_k)
        return merged(whole, windows, found, top_k)

    def _batch(self, images: Sequence[Prepared]) -> ImageBatch:
        preprocessing = self.info.preprocessing
        with one_memory_error():
            return ImageBatch.from_images([normalised(image.pixels.to(self.device), preprocessing) for image in images],
                                          size_divisor=preprocessing.divisor)

    def _found(self, predictions: Predictions, images: Sequence[Prepared], threshold: Threshold,
               top_k: int) -> list[Detections]:
        classes = np.flatnonzero(threshold <= 1).tolist() if isinstance(threshold, np.ndarray) else None
        found = predictions.detections([image.size for image in images], top_k, self.names,
                                       self.info.postprocessing.nms_threshold, classes)
        return [replace(each.above(threshold).clipped(), category_ids=self.info.category_ids) for each in found]


EXPORTED_SUFFIXES = (".onnx", ".xml", ".pt2")


def is_exported(weights: str | Path) -> bool:
    """Whether these weights are a file for another runtime."""
    path = Path(weights)
    return path.suffix.lower() in EXPORTED_SUFFIXES and path.is_file()


def _checked_threshold(field: str, threshold: float) -> float:
    if not 0 <= threshold <= 1:
        raise ValueError(f"{field}: expected a value in [0, 1], got {threshold}")
    return threshold


def _shown(source: ImageSource) -> object:
    """What a notebook may show the picture from."""
    return source if isinstance(source, str | Path | PIL.Image.Image | np.ndarray | torch.Tensor) else None


def _reading(source: ImageSource) -> Read:
    """What reads an image in a thread. Only files and their bytes are read there: others may change meanwhile."""
    if isinstance(source, str | bytes | os.PathLike):
        return partial(read_image, source)
    try:
        image = read_image(source)
    except ImageError as error:
        return partial(_fail, error)
    return lambda: image


def _fail(error: ImageError) -> Pixels:
    raise error


def _results(found: Generator[Found], paths: deque[str | Path | None]) -> Generator[Detections | Problem]:
    """What was found, with the paths that a notebook shows pictures from: pictures themselves would fill the memory."""
    with closing(found):
        for each in found:
            path, result = paths.popleft(), each.result
            yield replace(result, source=path) if isinstance(result, Detections) else result


def _raised(result: Detections | Problem) -> Detections:
    if isinstance(result, Detections):
        return result
    raise result


def _find_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()   # which "meta" refuses
    except (RuntimeError, AssertionError) as error:   # the second from builds of torch without CUDA
        raise ValueError(f"device: {name!r} is not available here ({str(error).splitlines()[0]})") from None
    return device
