"""What the model will be able to see, which some findings depend on."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from deformable_detr.data.picture_list import PictureList
from deformable_detr.structures import Preprocessing


@dataclass(frozen=True)
class Limits:
    """The published detector's by default."""

    preprocessing: Preprocessing = field(default_factory=Preprocessing)     # what size pictures will have
    num_queries: int = 300          # objects that it can find in a picture
    stride: int = 8                 # pixels of a resized picture's side to one of the finest map

    def scales(self, pictures: PictureList) -> Float[np.ndarray, "P"]:
        """By what each picture will be resized."""
        sizes, which = pictures.distinct_sizes()
        return np.array([self.preprocessing.resized(size)[0] / size[0] for size in sizes])[which]
