"""What the model will be able to see, which some findings depend on; and the size of images where no flag says."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from deformable_detr.datasets.image_list import ImageList
from deformable_detr.preprocessing import Preprocessing

LARGEST_SIZE = {"cpu": 384, "gpu": 640}      # of an image's short side, where no flag says
SIZE_STEP = 32


@dataclass(frozen=True)
class Limits:
    """The published detector's by default."""

    preprocessing: Preprocessing = field(default_factory=Preprocessing)     # what size images will have
    num_queries: int = 300          # objects that it can find in an image
    stride: int = 8                 # pixels of a resized image's side to one of the finest map

    def scales(self, images: ImageList) -> Float[np.ndarray, "P"]:
        """By what each image will be resized."""
        sizes, which = images.distinct_sizes()
        return np.array([self.preprocessing.resized(size)[0] / size[0] for size in sizes])[which]


def find_machine() -> str:
    """What there is to train on: "cpu" or "gpu"."""
    return "gpu" if torch.accelerator.is_available() else "cpu"


def typical_side(images: ImageList) -> int:
    """Pixels of the short side that half of the images have, or more."""
    return int(np.median(images.sizes.min(axis=1)))


def usual_size(images: ImageList) -> int:
    """Pixels of an image's short side in a training without flags."""
    return max(SIZE_STEP, min(typical_side(images), LARGEST_SIZE[find_machine()]) // SIZE_STEP * SIZE_STEP)
