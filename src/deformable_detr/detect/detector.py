"""Images in, detections in their own pixels out."""

from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import torch

from deformable_detr.detections import Detections
from deformable_detr.images import ImageSource, read_image
from deformable_detr.papers import DeformableDETR
from deformable_detr.preprocessing import prepare_image
from deformable_detr.structures import ImageBatch, Predictions
from deformable_detr.weights import ModelInfo, load
from deformable_detr.weights.sources import DEMO, find_weights


class Detector:
    """A model with all that belongs to it, ready for images.

    `weights` is "demo" for those in the package, the path of a file that `deformable_detr.weights.save` or
    `ddetr train` wrote, or "hf:owner/name" for the Hugging Face Hub. `device` "auto" takes the GPU when there
    is one. The model is made ready for looking: to train or save one, `deformable_detr.weights.load` it.
    Raises WeightsError when there are no such weights, ValueError when there is no such device.
    """

    def __init__(self, weights: str | Path = DEMO, device: str = "auto") -> None:
        self.device = _find_device(device)
        model, self.info = load(find_weights(weights))
        self.model = model.to(self.device).eval()
        self.model.backbone.fold_batch_norm()

    @classmethod
    def from_model(cls, model: DeformableDETR, info: ModelInfo) -> "Detector":
        """A detector around a model where it is, such as one in training: its mode is left alone."""
        detector = cls.__new__(cls)
        detector.device = next(model.parameters()).device
        detector.model, detector.info = model, info
        return detector

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class index."""
        return self.info.names

    @overload
    def __call__(self, source: ImageSource, threshold: float = 0.5, top_k: int = 100) -> Detections: ...

    @overload
    def __call__(self, source: list[ImageSource], threshold: float = 0.5,
                 top_k: int = 100) -> list[Detections]: ...

    def __call__(self, source: ImageSource | list[ImageSource], threshold: float = 0.5,
                 top_k: int = 100) -> Detections | list[Detections]:
        """What is in an image (or in each of a list): the `top_k` best, of these all that reach `threshold`.

        An image is what `deformable_detr.images.read_image` accepts. Each is looked at on its own, so
        that its detections do not depend on its neighbours. Raises ImageError for an image that cannot be
        read, ValueError for a threshold outside of [0, 1] or a `top_k` below 1.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: expected a value in [0, 1], got {threshold}")
        if top_k < 1:
            raise ValueError(f"top_k: expected at least 1, got {top_k}")
        if isinstance(source, list):
            return [self._detect(image, threshold, top_k) for image in source]
        return self._detect(source, threshold, top_k)

    @torch.inference_mode()
    def _detect(self, source: ImageSource, threshold: float, top_k: int) -> Detections:
        image = read_image(source)
        height, width = image.shape[:2]
        preprocessing = self.info.preprocessing
        prepared = prepare_image(image, preprocessing).to(self.device)
        batch = ImageBatch.from_images([prepared], size_divisor=preprocessing.divisor)
        predictions: Predictions = self.model(batch)
        found = predictions.detections([(height, width)], top_k, self.names, self.model.config.nms_threshold)[0]
        found = found.above(threshold)
        inside = np.clip(found.boxes, 0, np.array([width, height, width, height], dtype=np.float32))
        return replace(found, boxes=inside)


def _find_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()   # on "meta" there is no value to have
    except (RuntimeError, AssertionError) as error:   # the second from builds of torch without CUDA
        raise ValueError(f"device: {name!r} is not available here ({str(error).splitlines()[0]})") from None
    return device
