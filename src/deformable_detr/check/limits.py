"""What the model will be able to see, on which some findings depend."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from deformable_detr.datasets.image_list import ImageList
from deformable_detr.preprocessing import Preprocessing


@dataclass(frozen=True)
class Limits:
    """By default those of the published detector."""

    preprocessing: Preprocessing = field(default_factory=Preprocessing)     # how images will be resized
    num_queries: int = 300          # objects that can be found in an image
    top_k: int = 100                # detections an image that the evaluation counts
    stride: int = 8                 # pixels of a resized image per pixel of the finest feature map, along a side
    mirrored: bool = True           # whether training mirrors images, which confuses left and right

    def scales(self, images: ImageList) -> Float[np.ndarray, "P"]:
        """The factor by which each image will be resized."""
        sizes, which = images.distinct_sizes()
        return np.array([self.preprocessing.resized(size)[0] / size[0] for size in sizes])[which]
