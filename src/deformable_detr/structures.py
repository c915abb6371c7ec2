"""The tensors that travel between the parts: one frozen dataclass per stage.

The legend of shapes, used in every signature:

    B images   L levels    N tokens (all levels)   C channels   M heads    D = C / M
    P points     Q queries   K classes               T targets    H, W height and width
    E extra queries, used only in training
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import accumulate
from typing import Any, TypeVar, dataclass_transform

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils._pytree import tree_map_only

from deformable_detr.detections import NOT_FINITE, Detections, ImageSize, best_detections

LevelShapes = tuple[tuple[int, int], ...]   # (height, width) of each level, as Python ints
Class = TypeVar("Class", bound=type)
Structure = TypeVar("Structure")


@dataclass_transform(frozen_default=True)
def tensor_structure(cls: Class) -> Class:
    """A frozen dataclass that torch.export, torch.compile and tree_map can take apart.

    Its `repr` has a line for each field: type, shape and range of a tensor instead of its numbers.
    """
    frozen: Any = dataclass(frozen=True, repr=False)(cls)
    frozen.__repr__ = _described
    torch.export.register_dataclass(frozen)
    return frozen


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return _described_tensor(value)
    if isinstance(value, tuple) and any(isinstance(part, Tensor) for part in value):
        return f"({', '.join(map(_described, value))})"
    if not is_dataclass(value):
        return repr(value)
    lines = [f"    {part.name}={_described(getattr(value, part.name))}," for part in fields(value)]
    return "\n".join([f"{type(value).__name__}(", *(line.replace("\n", "\n    ") for line in lines), ")"])


def _described_tensor(tensor: Tensor) -> str:
    """As "float32 (2, 3, 480, 640) -2.12..2.64 cuda:0"; the share of True for booleans."""
    words = [str(tensor.dtype).removeprefix("torch."), str(tuple(tensor.shape))]
    if tensor.numel() and tensor.device.type != "meta" and type(tensor) in (Tensor, torch.nn.Parameter):
        if tensor.dtype == torch.bool:
            words.append(f"{tensor.float().mean():.1%} True")
        else:
            low, high = (bound.item() for bound in tensor.detach().aminmax())   # NaN if any value is
            words.append(f"{low:.4g}..{high:.4g}")
    return " ".join(words if tensor.device.type == "cpu" else [*words, str(tensor.device)])


def to_device(structure: Structure, device: torch.device | str) -> Structure:
    """A tensor structure, or a list of them, with every tensor on `device`."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), structure)


@tensor_structure
class ImageBatch:
    """Normalised images of different sizes in one tensor, padded on the right and at the bottom."""

    images: Float[Tensor, "B 3 H W"]        # zero where padded
    padding: Bool[Tensor, "B H W"]          # True where padded
    sizes: tuple[ImageSize, ...]            # (height, width) of each image before padding

    @classmethod
    def from_images(cls, images: Sequence[Tensor], size_divisor: int = 1) -> "ImageBatch":
        """Stack normalised (3, H, W) float images; height and width are padded to multiples of `size_divisor`.

        Raises ValueError for an empty list, and for an image with another shape or without pixels.
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

    @property
    def is_padded(self) -> bool:
        """Whether any image is smaller than the tensor."""
        return any(size != tuple(self.images.shape[2:]) for size in self.sizes)

    def part(self, start: int, end: int) -> "ImageBatch":
        """Images `start` to `end` - 1, with the same padding."""
        return ImageBatch(self.images[start:end], self.padding[start:end], self.sizes[start:end])


@tensor_structure
class Features:
    """The backbone's output."""

    maps: tuple[Float[Tensor, "B _ _ _"], ...]   # C3, C4, C5 (or the last of them), each (B, channels, H, W)
    padding: Bool[Tensor, "B H W"]               # of the input images
    is_padded: bool = True                       # False: no image has any, which a GPU need not be asked


def starts_of(level_shapes: LevelShapes) -> tuple[int, ...]:
    """Index of the first token of each level."""
    ends = accumulate(height * width for height, width in level_shapes)
    return (0, *ends)[:-1]


@tensor_structure
class Pyramid:
    """All levels as one token sequence, finest level first, each level row by row; also the encoder's output."""

    tokens: Float[Tensor, "B N C"]
    position: Float[Tensor, "B N C"]        # sine position and level embedding
    padding: Bool[Tensor, "B N"]            # True where a token covers padding
    valid_ratios: Float[Tensor, "B L 2"]    # unpadded share of width and height
    level_shapes: LevelShapes
    is_padded: bool = True                  # False: no token covers padding

    @property
    def blocked(self) -> Bool[Tensor, "B 1 N"] | None:
        """The tokens that no query may attend to, which are those at padding; None where there is none."""
        return self.padding[:, None] if self.is_padded else None

    @property
    def level_starts(self) -> tuple[int, ...]:
        """Index of the first token of each level."""
        return starts_of(self.level_shapes)


@tensor_structure
class Proposals:
    """One proposal per token (two-stage)."""

    logits: Float[Tensor, "B N K"]          # Deformable DETR trains and uses only class 0
    boxes: Float[Tensor, "B N 4"]           # cxcywh in [0, 1]
    chosen: Int64[Tensor, "B Q"] | None = None      # the tokens that became queries, best first


@tensor_structure
class ExtraQueries:
    """Extra queries, used only in training, that start from these boxes as if they had been proposed.

    A group attends to itself and to the ordinary queries (group 0), which attend to none of the extra ones, so the
    predictions of the ordinary queries do not change.
    """

    boxes: Float[Tensor, "B E 4"]           # cxcywh in [0, 1]
    groups: Int64[Tensor, "B E"]            # 1, 2, ...; -1: an empty slot, attended by no other
    labels: Int64[Tensor, "B E"] | None = None      # the class that a query claims, perhaps wrongly; -1: none

    def blocked(self, num_queries: int) -> Bool[Tensor, "B both both"]:
        """True where a query must not attend to another; `num_queries` ordinary ones come first."""
        groups = F.pad(self.groups, (num_queries, 0))
        return (groups[:, :, None] != groups[:, None]) & (groups[:, None] != 0)


@tensor_structure
class Queries:
    """The decoder's starting point; extra queries, if any, come last."""

    content: Float[Tensor, "B Q C"]
    position: Float[Tensor, "B Q C"] | None     # None: made from the reference in every decoder layer
    reference: Float[Tensor, "B Q R"]       # R = 0: none; R = 2: points; R = 4: cxcywh boxes; in [0, 1]
    proposals: Proposals | None = None      # two-stage only
    num_extra: int = 0
    blocked: Bool[Tensor, "B Q Q"] | None = None    # True where one must not attend to another


@tensor_structure
class Place:
    """Where the queries of one layer are, in the terms that its attentions need."""

    position: Float[Tensor, "B Q C"]            # added to the content
    reference: Float[Tensor, "B Q L R"]         # in [0, 1] of each level's padded map
    sine: Float[Tensor, "B Q C"] | None = None  # to be compared with the position of the memory (DAB-DETR)


@tensor_structure
class ExtraPredictions:
    """The predictions of every decoder layer for the extra queries."""

    logits: Float[Tensor, "layers B E K"]
    boxes: Float[Tensor, "layers B E 4"]    # cxcywh in [0, 1] of the unpadded image


@tensor_structure
class Predictions:
    """The predictions of every decoder layer; the last layer's are the result."""

    logits: Float[Tensor, "layers B Q K"]
    boxes: Float[Tensor, "layers B Q 4"]    # cxcywh in [0, 1] of the unpadded image
    proposals: Proposals | None = None      # two-stage only
    extra: ExtraPredictions | None = None   # with extra queries only
    no_object: bool = False                 # the last of the K logits stands for "no object" (softmax, as in DETR)

    def image(self, index: int) -> "Predictions":
        """The predictions for one image, as a batch of one."""
        rows = slice(index, index + 1)
        proposals = self.proposals and Proposals(
            self.proposals.logits[rows], self.proposals.boxes[rows],
            None if self.proposals.chosen is None else self.proposals.chosen[rows])
        extra = self.extra and ExtraPredictions(self.extra.logits[:, rows], self.extra.boxes[:, rows])
        return Predictions(self.logits[:, rows], self.boxes[:, rows], proposals, extra, self.no_object)

    def scores(self, layer: int = -1) -> Float[Tensor, "B Q classes"]:
        """A layer's score of each class, in [0, 1], by default the last one's; "no object" is left out."""
        logits = self.logits[layer].float()
        return logits.softmax(-1)[..., :-1] if self.no_object else logits.sigmoid()

    def are_finite(self) -> bool:
        """Whether all logits and boxes of the result are finite."""
        return bool(self.logits[-1].isfinite().all() & self.boxes[-1].isfinite().all())

    def detections(self, image_sizes: Sequence[ImageSize] | Tensor | np.ndarray, top_k: int = 100,
                   names: Sequence[str] | None = None, nms_threshold: float = 1.0,
                   classes: Sequence[int] | None = None) -> list[Detections]:
        """The `top_k` highest scores over query x class of each image, best first; of `classes` alone if given.

        As published a box may appear under two classes, but for DETR only under its best one. `image_sizes` are
        (height, width) in pixels; without `names` a class is named by its index. An `nms_threshold` below 1 first
        removes boxes that overlap a better one (`Detections.suppressed`). Raises ValueError if `image_sizes` or `names`
        do not fit the predictions, or if these are not finite.
        """
        if not self.are_finite():
            raise ValueError(NOT_FINITE)
        return best_detections(self.scores(), self.boxes[-1], image_sizes, top_k, names, nms_threshold,
                               classes=classes, one_class_each=self.no_object)


@tensor_structure
class Target:
    """The annotated objects of one image."""

    labels: Int64[Tensor, "T"]
    boxes: Float[Tensor, "T 4"]             # cxcywh in [0, 1]
    image_id: int | str | None = None       # named in error messages
