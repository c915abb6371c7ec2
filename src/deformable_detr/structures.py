"""What travels between the parts: one frozen dataclass a stage.

The legend of shapes, used in every signature:

    B images   L levels    N tokens (all levels)   C channels   M heads    D = C / M
    P points     Q queries   K classes               T targets    H, W height and width
    E extra queries, which only training asks
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, dataclass_transform

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils._pytree import tree_map_only

if TYPE_CHECKING:
    from deformable_detr.detections import Detections

LevelShapes = tuple[tuple[int, int], ...]   # (height, width) of each level, as Python ints
ImageSize = tuple[int, int]                 # (height, width)
Class = TypeVar("Class", bound=type)
Structure = TypeVar("Structure")


@dataclass_transform(frozen_default=True)
def tensor_structure(cls: Class) -> Class:
    """A frozen dataclass that export, compile and tree_map see through."""
    frozen = dataclass(frozen=True)(cls)
    torch.export.register_dataclass(frozen)
    return frozen


def to_device(structure: Structure, device: torch.device | str) -> Structure:
    """A tensor structure (or a list of them) with every tensor on `device`."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), structure)


@tensor_structure
class ImageBatch:
    """Normalised images of different sizes in one tensor, padded at the right and the bottom."""

    images: Float[Tensor, "B 3 H W"]        # zeros where padded
    padding: Bool[Tensor, "B H W"]          # True where padded
    sizes: tuple[ImageSize, ...]            # (height, width) of each image before padding

    @classmethod
    def from_images(cls, images: Sequence[Tensor], size_divisor: int = 1) -> "ImageBatch":
        """Stack normalised (3, H, W) float images; height and width become multiples of `size_divisor`.

        Raises ValueError for an empty list, and for an image of another shape or without pixels.
        """
        if not images:
            raise ValueError("images: expected at least one image, got none")
        for index, image in enumerate(images):
            if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape or not image.is_floating_point():
                raise ValueError(f"images[{index}]: expected a float tensor (3, height, width) with pixels, "
                                 f"got {image.dtype} {tuple(image.shape)}")
        sizes = tuple((image.shape[1], image.shape[2]) for image in images)
        height, width = (-(-max(extent) // size_divisor) * size_divisor for extent in zip(*sizes, strict=True))
        padded = [F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images]
        padding = torch.ones(len(images), height, width, dtype=torch.bool, device=images[0].device)
        for row, (image_height, image_width) in zip(padding, sizes, strict=True):
            row[:image_height, :image_width] = False
        return cls(torch.stack(padded), padding, sizes)

    def part(self, start: int, end: int) -> "ImageBatch":
        """Images `start` to `end` - 1, with the padding they have."""
        return ImageBatch(self.images[start:end], self.padding[start:end], self.sizes[start:end])


@tensor_structure
class Features:
    """What the backbone saw."""

    maps: tuple[Float[Tensor, "B _ _ _"], ...]   # C3, C4, C5 (or the last of them), each (B, channels, H, W)
    padding: Bool[Tensor, "B H W"]               # of the images, at their own size


@tensor_structure
class Pyramid:
    """All levels as one token sequence, the finest level first, each level row by row."""

    tokens: Float[Tensor, "B N C"]
    position: Float[Tensor, "B N C"]        # sine position and level embedding
    padding: Bool[Tensor, "B N"]            # True where a token covers padding
    valid_ratios: Float[Tensor, "B L 2"]    # unpadded share of width and height
    level_shapes: LevelShapes

    @property
    def level_starts(self) -> tuple[int, ...]:
        """Index of the first token of each level."""
        starts = [0]
        for height, width in self.level_shapes[:-1]:
            starts.append(starts[-1] + height * width)
        return tuple(starts)


@tensor_structure
class Proposals:
    """Two-stage: one proposal a token."""

    logits: Float[Tensor, "B N K"]          # class 0 alone is trained and used
    boxes: Float[Tensor, "B N 4"]           # cxcywh in [0, 1]


@tensor_structure
class ExtraQueries:
    """Queries that training asks beside the ordinary ones, as if these boxes had been proposed.

    A group sees itself and the ordinary queries (0), which see none of them; so the answer stays the same.
    """

    boxes: Float[Tensor, "B E 4"]           # cxcywh in [0, 1]
    groups: Int64[Tensor, "B E"]            # 1, 2, ...; -1: an empty slot, which nobody else sees

    def blocked(self, num_queries: int) -> Bool[Tensor, "B both both"]:
        """True where one query must not see another; `num_queries` ordinary ones come first."""
        groups = F.pad(self.groups, (num_queries, 0))
        return (groups[:, :, None] != groups[:, None]) & (groups[:, None] != 0)


@tensor_structure
class Queries:
    """What the decoder starts from; extra queries, if any, come last."""

    content: Float[Tensor, "B Q C"]
    position: Float[Tensor, "B Q C"]
    reference: Float[Tensor, "B Q R"]       # R = 2: points; R = 4: cxcywh boxes; in [0, 1]
    proposals: Proposals | None             # two-stage only
    num_extra: int = 0
    blocked: Bool[Tensor, "B Q Q"] | None = None    # True where one must not see another; None: all see all


@tensor_structure
class ExtraPredictions:
    """What every decoder layer says of the extra queries."""

    logits: Float[Tensor, "layers B E K"]
    boxes: Float[Tensor, "layers B E 4"]    # cxcywh in [0, 1] of the unpadded image


@tensor_structure
class Predictions:
    """What every decoder layer says; the last layer is the answer."""

    logits: Float[Tensor, "layers B Q K"]
    boxes: Float[Tensor, "layers B Q 4"]    # cxcywh in [0, 1] of the unpadded image
    proposals: Proposals | None             # two-stage only
    extra: ExtraPredictions | None = None   # where extra queries were asked

    def image(self, index: int) -> "Predictions":
        """The predictions for one image, as a batch of one."""
        rows = slice(index, index + 1)
        proposals = self.proposals and Proposals(self.proposals.logits[rows], self.proposals.boxes[rows])
        extra = self.extra and ExtraPredictions(self.extra.logits[:, rows], self.extra.boxes[:, rows])
        return Predictions(self.logits[:, rows], self.boxes[:, rows], proposals, extra)

    def detections(self, image_sizes: Sequence[ImageSize] | Tensor | np.ndarray, top_k: int = 100,
                   names: Sequence[str] | None = None, nms_threshold: float = 1.0) -> list["Detections"]:
        """The `top_k` highest scores over query x class of each image, best first.

        One box may come under two classes, as published. `image_sizes` are (height, width) in pixels;
        without `names` a class is called by its index. With an `nms_threshold` below 1, the best of those that
        `Detections.suppressed` leaves. Raises ValueError when `image_sizes` or `names` does not fit the predictions.
        """
        from deformable_detr.detections import detections_of

        return detections_of(self, image_sizes, top_k, names, nms_threshold)


@tensor_structure
class Target:
    """The truth for one image."""

    labels: Int64[Tensor, "T"]
    boxes: Float[Tensor, "T 4"]             # cxcywh in [0, 1]
    image_id: int | str | None = None       # named in error messages
