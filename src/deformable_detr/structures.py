"""What travels between the parts: one frozen dataclass a stage.

The legend of shapes, used in every signature:

    B pictures   L levels    N tokens (all levels)   C channels   M heads    D = C / M
    P points     Q queries   K classes               T targets    H, W height and width
    E extra queries, which only training asks
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils._pytree import tree_map_only

from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.drawing import draw_boxes
from deformable_detr.pictures import PictureSource

if TYPE_CHECKING:
    import PIL.Image
    import supervision

LevelShapes = tuple[tuple[int, int], ...]   # (height, width) of each level, as Python ints
ImageSize = tuple[int, int]                 # (height, width)
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")   # which no name may hold: terminals obey it
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
    """Normalised pictures of different sizes in one tensor, padded at the right and the bottom."""

    images: Float[Tensor, "B 3 H W"]        # zeros where padded
    padding: Bool[Tensor, "B H W"]          # True where padded
    sizes: tuple[ImageSize, ...]            # (height, width) of each picture before padding

    @classmethod
    def from_images(cls, images: Sequence[Tensor], size_divisor: int = 1) -> "ImageBatch":
        """Stack normalised (3, H, W) float pictures; height and width become multiples of `size_divisor`.

        Raises ValueError for an empty list, and for a picture of another shape or without pixels.
        """
        if not images:
            raise ValueError("images: expected at least one picture, got none")
        for index, image in enumerate(images):
            if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape or not image.is_floating_point():
                raise ValueError(f"images[{index}]: expected a float tensor (3, height, width) with pixels, "
                                 f"got {image.dtype} {tuple(image.shape)}")
        sizes = tuple((image.shape[1], image.shape[2]) for image in images)
        height, width = (-(-max(extent) // size_divisor) * size_divisor for extent in zip(*sizes, strict=True))
        padded = [F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images]
        padding = torch.ones(len(images), height, width, dtype=torch.bool, device=images[0].device)
        for row, (picture_height, picture_width) in zip(padding, sizes, strict=True):
            row[:picture_height, :picture_width] = False
        return cls(torch.stack(padded), padding, sizes)

    def part(self, start: int, end: int) -> "ImageBatch":
        """Pictures `start` to `end` - 1, with the padding they have."""
        return ImageBatch(self.images[start:end], self.padding[start:end], self.sizes[start:end])


@tensor_structure
class Features:
    """What the backbone saw."""

    maps: tuple[Float[Tensor, "B _ _ _"], ...]   # C3, C4, C5 (or the last of them), each (B, channels, H, W)
    padding: Bool[Tensor, "B H W"]               # of the pictures, at their own size


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
    boxes: Float[Tensor, "layers B E 4"]    # cxcywh in [0, 1] of the unpadded picture


@tensor_structure
class Predictions:
    """What every decoder layer says; the last layer is the answer."""

    logits: Float[Tensor, "layers B Q K"]
    boxes: Float[Tensor, "layers B Q 4"]    # cxcywh in [0, 1] of the unpadded picture
    proposals: Proposals | None             # two-stage only
    extra: ExtraPredictions | None = None   # where extra queries were asked

    def picture(self, index: int) -> "Predictions":
        """The predictions for one picture, as a batch of one."""
        rows = slice(index, index + 1)
        proposals = self.proposals and Proposals(self.proposals.logits[rows], self.proposals.boxes[rows])
        extra = self.extra and ExtraPredictions(self.extra.logits[:, rows], self.extra.boxes[:, rows])
        return Predictions(self.logits[:, rows], self.boxes[:, rows], proposals, extra)

    def detections(self, image_sizes: Sequence[ImageSize] | Tensor | np.ndarray, top_k: int = 100,
                   names: Sequence[str] | None = None, nms_threshold: float = 1.0) -> list["Detections"]:
        """The `top_k` highest scores over query x class of each picture, best first.

        One box may come under two classes, as published. `image_sizes` are (height, width) in pixels;
        without `names` a class is called by its index. With an `nms_threshold` below 1, the best of those that
        `Detections.suppressed` leaves. Raises ValueError when `image_sizes` or `names` does not fit the predictions.
        """
        _, batch, num_queries, num_classes = self.logits.shape
        sizes = [(int(height), int(width)) for height, width in image_sizes]
        if len(sizes) != batch:
            raise ValueError(f"image_sizes: expected {batch} (height, width) pairs, got {len(sizes)}")
        if names is not None and len(names) != num_classes:
            raise ValueError(f"names: expected {num_classes} names, one a class, got {len(names)}")
        scores = self.logits[-1].float().sigmoid().flatten(1)
        num_candidates = top_k if nms_threshold == 1 else num_queries * num_classes
        scores, order = scores.topk(min(num_candidates, num_queries * num_classes), dim=1)
        boxes = cxcywh_to_xyxy(self.boxes[-1].float())
        boxes = boxes.gather(1, (order // num_classes)[..., None].expand(-1, -1, 4))
        boxes = boxes * boxes.new_tensor([(width, height, width, height) for height, width in sizes])[:, None]
        arrays = (tensor.detach().cpu().numpy() for tensor in (boxes, scores, order % num_classes))
        class_names = list(names) if names is not None else [str(index) for index in range(num_classes)]
        found = [Detections(box, score, label, [class_names[index] for index in label], size)
                 for box, score, label, size in zip(*arrays, sizes, strict=True)]
        return found if nms_threshold == 1 else [detections.suppressed(nms_threshold, top_k) for detections in found]


@tensor_structure
class Target:
    """The truth for one picture."""

    labels: Int64[Tensor, "T"]
    boxes: Float[Tensor, "T 4"]             # cxcywh in [0, 1]
    image_id: int | str | None = None       # named in error messages


@dataclass(frozen=True)
class Detections:
    """Objects found in one picture, best first, as NumPy arrays."""

    boxes: Float[np.ndarray, "T 4"]         # float32, xyxy in pixels of the upright picture
    scores: Float[np.ndarray, "T"]          # float32, in [0, 1]
    labels: Int64[np.ndarray, "T"]          # class indices 0..K-1
    names: list[str]
    image_size: ImageSize                   # (height, width)

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> "Detections":
        """Those whose score is at least `threshold`."""
        return self._only(np.flatnonzero(self.scores >= threshold))

    def suppressed(self, threshold: float, top_k: int | None = None) -> "Detections":
        """Without those that overlap a better one of their class by an IoU above `threshold`; the `top_k` best."""
        from torchvision.ops import batched_nms

        boxes, scores, labels = map(torch.from_numpy, (self.boxes, self.scores, self.labels))
        return self._only(batched_nms(boxes, scores, labels, threshold)[:top_k].numpy())

    def _only(self, kept: Int64[np.ndarray, "kept"]) -> "Detections":
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept],
                          [self.names[index] for index in kept], self.image_size)

    def draw(self, picture: PictureSource) -> "PIL.Image.Image":
        """The upright picture with boxes, names and scores drawn on it."""
        captions = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)]
        return draw_boxes(picture, self.boxes, captions, self.labels)

    def to_dict(self, category_ids: Sequence[int] | None = None) -> dict[str, Any]:
        """Plain numbers for JSON; `label` is the class index, or its id where `category_ids` maps it."""
        height, width = self.image_size
        found = [{"label": int(category_ids[label] if category_ids else label), "name": name,
                  "score": round(float(score), 4), "box": [round(float(edge), 2) for edge in box]}
                 for box, score, label, name in zip(self.boxes, self.scores, self.labels, self.names, strict=True)]
        return {"width": width, "height": height, "detections": found}

    def to_supervision(self) -> "supervision.Detections":
        """The same as `supervision.Detections`; needs `pip install supervision`."""
        import supervision

        return supervision.Detections(xyxy=self.boxes, confidence=self.scores, class_id=self.labels,
                                      data={"class_name": np.array(self.names, dtype=str)})


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes what the model was trained on; kept with the weights.

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
        """(height, width) after resizing a picture of `image_size`."""
        short, long = min(image_size), max(image_size)
        target = self.size
        if long * target > self.max_size * short:
            target = max(1, round(self.max_size * short / long))
        height, width = (max(1, min(self.max_size, int(target * extent / short))) for extent in image_size)
        return height, width
