"""From an image to the model's input: resized and normalised."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from deformable_detr.dynamo import dynamo_when_used
from deformable_detr.structures import ImageSize
from deformable_detr.text import quoted

with dynamo_when_used():
    from torchvision.transforms import v2

LARGEST_COLOUR = 1000       # of a mean or deviation of colours in [0, 1]
SMALLEST_DEVIATION = 1e-6   # a float32 that is divided by less may become infinite

LONGEST = 5 / 3     # max_size to size, nearly as published (1333 to 800)


@dataclass(frozen=True)
class Preprocessing:
    """How images are resized and normalised for a model; kept with its weights.

    The short side is resized to `size` pixels, or fewer if the long side would exceed `max_size`: as published that
    short side is rounded, so the long one may exceed `max_size` by a little (1334 for 1333). Colours in [0, 1] are
    normalised by `mean` and `deviation`; both sides of a batch are padded to multiples of `divisor`.
    Raises ValueError for values that no image can be prepared with.
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
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            if len(values) != 3 or not all(abs(value) <= LARGEST_COLOUR for value in values):   # NaN neither
                raise ValueError(f"preprocessing: {name}: expected 3 numbers up to {LARGEST_COLOUR}, "
                                 f"got {quoted(values)}")
        if min(self.deviation) < SMALLEST_DEVIATION:
            raise ValueError(f"preprocessing: deviation: expected at least {SMALLEST_DEVIATION}, got {self.deviation}")

    def resized(self, image_size: ImageSize) -> ImageSize:
        """(height, width) after resizing an image of `image_size`, as published (`get_size_with_aspect_ratio`)."""
        short, long = min(image_size), max(image_size)
        target = self.size
        if long * target > self.max_size * short:
            target = round(self.max_size * short / long)
        if target == 0:     # the published rule has no answer for a strip this thin
            return (1, self.max_size) if image_size[0] == short else (self.max_size, 1)
        height, width = (int(target * extent / short) for extent in image_size)
        return height, width


@dataclass(frozen=True)
class FittedPreprocessing(Preprocessing):
    """As `Preprocessing`, but an image that would not fit into `room` (height, width) becomes smaller until it does."""

    room: ImageSize = (1, 1)

    def resized(self, image_size: ImageSize) -> ImageSize:
        """(height, width) after resizing an image of `image_size`."""
        height, width = super().resized(image_size)
        if height <= self.room[0] and width <= self.room[1]:
            return height, width
        scale = min(room / side for room, side in zip(self.room, image_size, strict=True))
        height, width = (max(1, min(room, round(side * scale)))
                         for room, side in zip(self.room, image_size, strict=True))
        return height, width


def usual_max_size(size: int) -> int:
    """The `max_size` of a preprocessing of which only the size is known."""
    return max(size, round(size * LONGEST))


def prepare_image(image: UInt8[np.ndarray, "h w 3"],
                  preprocessing: Preprocessing) -> Float[Tensor, "3 H W"]:
    """The model's input for an RGB image."""
    return normalised(resize_image(image, preprocessing), preprocessing)


def resize_image(image: UInt8[np.ndarray, "h w 3"], preprocessing: Preprocessing) -> UInt8[Tensor, "3 H W"]:
    """An RGB image in the size that the model wants."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    size = preprocessing.resized((pixels.shape[1], pixels.shape[2]))
    return v2.functional.resize(pixels, list(size))


def normalised(image: UInt8[Tensor, "3 H W"], preprocessing: Preprocessing) -> Float[Tensor, "3 H W"]:
    """Colours in 0..255 as floats with the mean and the deviation that the backbone expects."""
    values = v2.functional.to_dtype(image, torch.float32, scale=True)
    return v2.functional.normalize(values, list(preprocessing.mean), list(preprocessing.deviation))
