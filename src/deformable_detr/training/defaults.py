"""The machine that a training runs on, and the size of its images where none is given."""

import numpy as np
import torch

from deformable_detr.datasets.image_list import ImageList

LARGEST_SIZE = {"cpu": 384, "gpu": 640}      # of an image's short side
SIZE_STEP = 32


def find_machine() -> str:
    """ "gpu" where there is one to train on, else "cpu"."""
    return "gpu" if torch.accelerator.is_available() else "cpu"


def typical_side(images: ImageList) -> int:
    """The median of the images' short sides, in pixels."""
    return int(np.median(images.sizes.min(axis=1)))


def default_size(images: ImageList) -> int:
    """Pixels of an image's short side in a training for which no size is given."""
    return max(SIZE_STEP, min(typical_side(images), LARGEST_SIZE[find_machine()]) // SIZE_STEP * SIZE_STEP)
