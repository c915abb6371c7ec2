"""Pictures in, detections in their own pixels out."""

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import overload

import numpy as np
import torch

from deformable_detr.data.transforms import prepare_picture
from deformable_detr.model import DeformableDETR
from deformable_detr.pictures import PictureSource, read_picture
from deformable_detr.structures import Detections, ImageBatch, Predictions
from deformable_detr.weights import ModelInfo, WeightsError, load

DEMO = "demo"
HUB_PREFIX = "hf:"
HUB_FILE = "model.safetensors"


class Detector:
    """A model with all that belongs to it, ready for pictures.

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
    def __call__(self, source: PictureSource, threshold: float = 0.5, top_k: int = 100) -> Detections: ...

    @overload
    def __call__(self, source: list[PictureSource], threshold: float = 0.5,
                 top_k: int = 100) -> list[Detections]: ...

    def __call__(self, source: PictureSource | list[PictureSource], threshold: float = 0.5,
                 top_k: int = 100) -> Detections | list[Detections]:
        """What is in a picture (or in each of a list): the `top_k` best, of these all that reach `threshold`.

        A picture is what `deformable_detr.pictures.read_picture` accepts. Each is looked at on its own, so
        that its detections do not depend on its neighbours. Raises PictureError for a picture that cannot be
        read, ValueError for a threshold outside of [0, 1] or a `top_k` below 1.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: expected a value in [0, 1], got {threshold}")
        if top_k < 1:
            raise ValueError(f"top_k: expected at least 1, got {top_k}")
        if isinstance(source, list):
            return [self._detect(picture, threshold, top_k) for picture in source]
        return self._detect(source, threshold, top_k)

    @torch.inference_mode()
    def _detect(self, source: PictureSource, threshold: float, top_k: int) -> Detections:
        picture = read_picture(source)
        height, width = picture.shape[:2]
        preprocessing = self.info.preprocessing
        image = prepare_picture(picture, preprocessing).to(self.device)
        batch = ImageBatch.from_images([image], size_divisor=preprocessing.divisor)
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


def find_weights(weights: str | Path) -> Path:
    """The file that "demo", "hf:owner/name" or a path stands for. Raises WeightsError where it cannot be had."""
    if weights == DEMO:
        return _packaged()
    if isinstance(weights, str) and weights.startswith(HUB_PREFIX):
        return _from_hub(weights.removeprefix(HUB_PREFIX))
    return Path(weights)


def packaged_weights() -> Path | None:
    """The weights that came with the package, None for a copy without them."""
    path = _assets() / "demo.safetensors"
    return path if path.is_file() else None


def packaged_pictures() -> list[Path]:
    """The pictures that came with the package."""
    return sorted((_assets() / "pictures").glob("*.jpg"))


def _assets() -> Path:
    return Path(str(resources.files("deformable_detr"))) / "assets"


def _packaged() -> Path:
    path = packaged_weights()
    if path is None:
        raise WeightsError(f"weights: this copy of deformable-detr carries no {DEMO!r} weights; "
                           "give the path of a file")
    return path


def _from_hub(repository: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise WeightsError(f"{HUB_PREFIX}{repository}: needs `pip install huggingface_hub`") from None
    try:
        return Path(hf_hub_download(repository, HUB_FILE))
    except (OSError, ValueError) as error:   # no such repository or file, no network, a malformed name
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{HUB_PREFIX}{repository}: cannot fetch {HUB_FILE} ({reason})") from None
