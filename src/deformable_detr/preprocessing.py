"""An image becomes what a model was trained on: resized and normalised."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import v2

from deformable_detr.structures import ImageSize


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes what the model was trained on; kept with the weights.

    The short side is resized to `size` unless the long side would pass `max_size`; colours in [0, 1] are
    normalised by `mean` and `deviation`; both sides of a batch are padded to multiples of `divisor`.
    """

    size: int = 800
    max_size: int = 1333
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)
    divisor: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.max_size:
            raise ValueError(f"preprocessing: expected 1 <= size <= max_size, got {self.size} and {self.max_size}")
        if self.divisor < 1:
            raise ValueError(f"preprocessing: divisor must be at least 1, got {self.divisor}")
        if min(self.deviation) <= 0:
            raise ValueError(f"preprocessing: deviation must be positive, got {self.deviation}")

    def resized(self, image_size: ImageSize) -> ImageSize:
        """(height, width) after resizing an image of `image_size`."""
        short, long = min(image_size), max(image_size)
        target = self.size
        if long * target > self.max_size * short:
            target = max(1, round(self.max_size * short / long))
        height, width = (max(1, min(self.max_size, int(target * extent / short))) for extent in image_size)
        return height, width


def prepare_image(image: UInt8[np.ndarray, "h w 3"],
                  preprocessing: Preprocessing) -> Float[Tensor, "3 H W"]:
    """What the model sees of an image: resized and normalised."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    size = preprocessing.resized((pixels.shape[1], pixels.shape[2]))
    return normalised(v2.functional.resize(pixels, list(size)), preprocessing)


def normalised(image: UInt8[Tensor, "3 H W"], preprocessing: Preprocessing) -> Float[Tensor, "3 H W"]:
    """Colours 0..255 to floats of mean 0 and deviation 1 over the training images."""
    values = v2.functional.to_dtype(image, torch.float32, scale=True)
    return v2.functional.normalize(values, list(preprocessing.mean), list(preprocessing.deviation))
