"""Images in, detections in their own pixels out."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import PIL.Image
import torch
from jaxtyping import UInt8

from deformable_detr.detect.runtimes import TorchRuntime
from deformable_detr.detections import Detections
from deformable_detr.images import ImageSource, is_single_image, iterate_images, read_image
from deformable_detr.model.network import Network
from deformable_detr.preprocessing import prepare_image
from deformable_detr.structures import ImageBatch, Predictions
from deformable_detr.text import printable
from deformable_detr.weights import ModelInfo, read_any
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    from deformable_detr.explain.explanation import Explanation

SHOWN_NAMES = 7     # of the classes


class Detector:
    """A model and what is known about it, ready for images.

    `weights` is "demo" for those in the package, a short name such as "coco", "hf:owner/name[@revision]" for the
    Hugging Face Hub, or a path: a file of ours or of another code base, or a folder of transformers (`read_any`).
    `device` "auto" is the GPU if there is one.
    `model` stays as it was loaded and can be saved: images are run through a private copy.
    Raises WeightsError if there are no such weights, ValueError if there is no such device.
    """

    def __init__(self, weights: str | Path = DEMO, device: str = "auto") -> None:
        found = _find_device(device)
        model, info = read_any(weights)
        self._set(model.to(found), info)

    @classmethod
    def from_model(cls, model: Network, info: ModelInfo) -> "Detector":
        """A detector with the weights that `model` has now, on its device."""
        detector = cls.__new__(cls)
        detector._set(model, info)
        return detector

    def _set(self, model: Network, info: ModelInfo) -> None:
        self.model, self.info = model, info
        self.runtime = TorchRuntime(model)
        self.device = self.runtime.device

    def __repr__(self) -> str:
        info = self.info
        names = ", ".join(map(printable, info.names[:SHOWN_NAMES])) + (", ..." if len(info.names) > SHOWN_NAMES else "")
        before, after = info.preprocessing, info.postprocessing
        nms = "" if after.nms_threshold == 1 else f", NMS above IoU {after.nms_threshold:g}"
        return (f"Detector({type(self.model).__name__} on {self.device}, {len(info.names)} classes: {names}; "
                f"images resized to {before.size}, at most {before.max_size}; threshold {after.threshold:g}{nms})")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class index."""
        return self.info.names

    @overload
    def __call__(self, source: ImageSource, threshold: float | None = None, top_k: int = 100) -> Detections: ...

    @overload
    def __call__(self, source: Iterable[ImageSource], threshold: float | None = None,
                 top_k: int = 100) -> list[Detections]: ...

    def __call__(self, source: ImageSource | Iterable[ImageSource], threshold: float | None = None,
                 top_k: int = 100) -> Detections | list[Detections]:
        """The detections in an image, or a list of them for an iterable or a batch of images.

        These are the `top_k` best with a score of at least `threshold`, by default the one kept with the weights.
        An image is anything that `deformable_detr.images.read_image` accepts. Each is run alone, so that its
        detections do not depend on the others. Raises ImageError for an image that cannot be read, ValueError for
        a threshold outside [0, 1], a `top_k` below 1, or predictions that are not finite, MemoryError for an image
        that is too large.
        """
        threshold = self._check(threshold, top_k)
        is_single = is_single_image(source)
        found = [replace(self._detect(image, threshold, top_k), source=_kept(image, is_single))
                 for image in iterate_images(source)]
        return found[0] if is_single else found

    def explain(self, source: ImageSource, threshold: float | None = None, top_k: int = 100) -> "Explanation":
        """The same detections in one image, with the places where the model looked for them in every layer.

        Arguments and errors are those of a call for one image.
        """
        from deformable_detr.explain.collecting import Collector
        from deformable_detr.explain.explanation import explain

        threshold = self._check(threshold, top_k)
        image = read_image(source)
        with Collector(self.runtime.model) as collected:
            predictions = self.runtime.run(self._prepare(image))
        found = self._found(predictions, image, threshold, top_k)
        name = Path(source).name if isinstance(source, str | Path) else "image"
        return explain(collected, predictions, found, PIL.Image.fromarray(image), name, self.names, threshold)

    def _check(self, threshold: float | None, top_k: int) -> float:
        """The threshold, by default the one kept with the weights."""
        threshold = self.info.postprocessing.threshold if threshold is None else threshold
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: expected a value in [0, 1], got {threshold}")
        if top_k < 1:
            raise ValueError(f"top_k: expected at least 1, got {top_k}")
        return threshold

    def _detect(self, source: ImageSource, threshold: float, top_k: int) -> Detections:
        image = read_image(source)
        return self._found(self.runtime.run(self._prepare(image)), image, threshold, top_k)

    def _prepare(self, image: UInt8[np.ndarray, "_ _ 3"]) -> ImageBatch:
        preprocessing = self.info.preprocessing
        return ImageBatch.from_images([prepare_image(image, preprocessing)], size_divisor=preprocessing.divisor)

    def _found(self, predictions: Predictions, image: UInt8[np.ndarray, "_ _ 3"], threshold: float,
               top_k: int) -> Detections:
        height, width = image.shape[:2]
        found = predictions.detections([(height, width)], top_k, self.names,
                                       self.info.postprocessing.nms_threshold)[0].above(threshold)
        inside = np.clip(found.boxes, 0, np.array([width, height, width, height], dtype=np.float32))
        return replace(found, boxes=inside)


def _kept(source: ImageSource, is_single: bool) -> object:
    """What a notebook may show the picture from: of many images only their paths, since pixels fill the memory."""
    kept = (str, Path, PIL.Image.Image, np.ndarray, torch.Tensor) if is_single else (str, Path)
    return source if isinstance(source, kept) else None


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
