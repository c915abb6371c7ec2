"""From scores and boxes in [0, 1] to detections: the best over queries and classes, in pixels."""

import html
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.text import printable

if TYPE_CHECKING:
    import pandas
    import PIL.Image
    import supervision

    from deformable_detr.images import ImageSource

ImageSize = tuple[int, int]   # (height, width)
Threshold = float | Float[np.ndarray, "K"]      # of each class, above 1 for those that are not wanted

UNWANTED = -1.0     # score of a class that was not asked for
SHOWN_ROWS = 10     # of a table
SHOWN_SIDE = 720    # pixels of the longer side of a picture in a notebook
NOT_FINITE = "predictions: expected finite scores and boxes, got NaN or infinity; the weights may be damaged"


@dataclass(frozen=True)
class Detection:
    """One object found in an image."""

    box: Float[np.ndarray, "4"]     # float32, xyxy in pixels of the upright image
    score: float                    # in [0, 1]
    label: int                      # class index
    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The objects found in one image, best first, as NumPy arrays.

    Iterating yields each `Detection`, as does an integer index; a slice, a mask or several indices give Detections.
    """

    boxes: Float[np.ndarray, "T 4"]         # float32, xyxy in pixels of the upright image
    scores: Float[np.ndarray, "T"]          # float32, in [0, 1]
    labels: Int64[np.ndarray, "T"]          # class indices 0..K-1
    names: list[str]
    image_size: ImageSize                   # (height, width)
    queries: Int64[np.ndarray, "T"] | None = None   # the query that found each; None where this is not known
    source: Any = None                      # the image, or its path, where a notebook can show it
    tracks: Int64[np.ndarray, "T"] | None = None    # of a video: the number of each object, -1 while it has none
    category_ids: Sequence[int] | None = None       # of all classes, as annotations number them; None: 0..K-1

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return map(self._one, range(len(self)))

    @overload
    def __getitem__(self, index: SupportsIndex) -> Detection: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> "Detections": ...

    def __getitem__(self, index: Any) -> "Detection | Detections":
        rows = np.arange(len(self))
        if isinstance(index, slice):
            return self._only(rows[index])
        if np.ndim(index) == 0:
            return self._one(int(rows[operator.index(index)]))
        chosen = np.asarray(index)
        return self._only(rows[chosen] if len(chosen) else rows[:0])    # NumPy takes an empty list for floats

    def __repr__(self) -> str:
        height, width = self.image_size
        names = [printable(name) for name in ("name", *self.names[:SHOWN_ROWS])]
        longest = max(map(len, names))
        lines = [f"{'score':>8}  {names[0]:<{longest}} " + "".join(f"{edge:>9}" for edge in ("x0", "y0", "x1", "y1"))]
        lines += [f"{each.score:8.3f}  {name:<{longest}} " + "".join(f"{edge:9.1f}" for edge in each.box)
                  for each, name in zip(self[:SHOWN_ROWS], names[1:], strict=True)]
        lines += [f"     ... and {len(self) - SHOWN_ROWS} more"] if len(self) > SHOWN_ROWS else []
        return "\n".join([f"Detections: {len(self)} in {width} x {height} pixels", *(lines if len(self) else [])])

    def _repr_html_(self) -> str:
        """For a notebook: the picture, if it is at hand, above the table."""
        from deformable_detr.drawing import data_url
        from deformable_detr.images import ImageError

        table = f"<pre>{html.escape(repr(self))}</pre>"
        try:
            return table if self.source is None else f'<img src="{data_url(self._picture())}" alt="">{table}'
        except ImageError:      # the file has gone
            return table

    def _picture(self) -> "PIL.Image.Image":
        """As `draw`, at a size at which captions can be read and no pixels are wasted."""
        import PIL.Image

        from deformable_detr.images import read_image

        image = PIL.Image.fromarray(read_image(self.source))
        scale = SHOWN_SIDE / max(image.size)
        shown = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        return replace(self, boxes=(self.boxes * scale).astype(np.float32)).draw(shown)

    def above(self, threshold: Threshold) -> "Detections":
        """The detections with a score of at least `threshold`, or that of their class."""
        lowest = threshold[self.labels] if isinstance(threshold, np.ndarray) else threshold
        return self._only(np.flatnonzero(self.scores >= lowest))

    def clipped(self) -> "Detections":
        """The same, with boxes that end at the edges of the image."""
        height, width = self.image_size
        inside = np.clip(self.boxes, 0, np.array([width, height, width, height], dtype=np.float32))
        return replace(self, boxes=inside + np.float32(0))      # no -0, which files would show

    def suppressed(self, threshold: float, top_k: int | None = None) -> "Detections":
        """The `top_k` best that remain without those whose IoU with a better one of their class exceeds `threshold`."""
        from torchvision.ops import batched_nms

        boxes, scores, labels = map(torch.from_numpy, (self.boxes, self.scores, self.labels))
        return self._only(batched_nms(boxes, scores, labels, threshold)[:top_k].numpy())

    def _one(self, row: int) -> Detection:
        return Detection(self.boxes[row], float(self.scores[row]), int(self.labels[row]), self.names[row])

    def _only(self, kept: Int64[np.ndarray, "kept"]) -> "Detections":
        return replace(self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept],
                       names=[self.names[index] for index in kept],
                       queries=None if self.queries is None else self.queries[kept],
                       tracks=None if self.tracks is None else self.tracks[kept])

    def draw(self, image: "ImageSource") -> "PIL.Image.Image":
        """The upright image with boxes, names, tracks and scores drawn on it."""
        from deformable_detr.drawing import draw_boxes

        tracks = [""] * len(self) if self.tracks is None else [f" #{track}" if track >= 0 else ""
                                                               for track in self.tracks]
        captions = [f"{name}{track} {score:.2f}" for name, track, score in zip(self.names, tracks, self.scores,
                                                                               strict=True)]
        return draw_boxes(image, self.boxes, captions, self.labels)

    def to_dict(self, category_ids: Sequence[int] | None = None) -> dict[str, Any]:
        """Plain numbers for JSON: `label` is the class index; the class's entry of `category_ids` is `category_id`.

        `track` is there for frames of a video whose objects are tracked; None while an object has no number yet.
        """
        height, width = self.image_size
        tracks = [{}] * len(self) if self.tracks is None else [{"track": int(track) if track >= 0 else None}
                                                               for track in self.tracks]
        found = [{"label": each.label, "name": each.name, "score": round(each.score, 4),
                  "box": [round(float(edge), 2) for edge in each.box],
                  **({} if category_ids is None else {"category_id": int(category_ids[each.label])}), **track}
                 for each, track in zip(self, tracks, strict=True)]
        return {"width": width, "height": height, "detections": found}

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """As COCO's results: `bbox` is x, y, width, height. `category_ids` are by default those of the weights."""
        ids = category_ids or self.category_ids
        return [{"image_id": image_id, "category_id": label if ids is None else int(ids[label]),
                 "bbox": [round(x0, 3), round(y0, 3), round(x1 - x0, 3), round(y1 - y0, 3)], "score": round(score, 6)}
                for (x0, y0, x1, y1), score, label in zip(self.boxes.astype(np.float64).tolist(), self.scores.tolist(),
                                                          self.labels.tolist(), strict=True)]

    def to_yolo(self, *, scores: bool = True) -> str:
        """As the lines of a YOLO label file: class, centre x, centre y, width, height in [0, 1], and the score."""
        height, width = self.image_size
        corners = self.boxes.astype(np.float64).reshape(-1, 2, 2) / (width, height)
        centres, sizes = corners.mean(axis=1), corners[:, 1] - corners[:, 0]
        numbers = np.concatenate([centres, sizes, *([self.scores[:, None]] if scores else [])], axis=1)
        return "".join(f"{label} {' '.join(f'{number:.8g}' for number in row)}\n"
                       for label, row in zip(self.labels, numbers, strict=True))

    def to_pandas(self) -> "pandas.DataFrame":
        """A row for each detection; needs `pip install 'deformable-detr[pandas]'`."""
        columns = {"label": self.labels, "name": self.names, "score": self.scores,
                   **dict(zip(("x0", "y0", "x1", "y1"), self.boxes.T, strict=True)),
                   **({} if self.tracks is None else {"track": self.tracks})}
        return _library("pandas").DataFrame(columns)

    def to_supervision(self) -> "supervision.Detections":
        """As `supervision.Detections`; needs `pip install 'deformable-detr[supervision]'`."""
        return _library("supervision").Detections(
            xyxy=self.boxes, confidence=self.scores, class_id=self.labels, tracker_id=self.tracks,
            data={"class_name": np.array(self.names, dtype=str)})

    @classmethod
    def from_supervision(cls, found: "supervision.Detections", image_size: ImageSize,
                         names: Sequence[str] | None = None) -> "Detections":
        """From `supervision.Detections` in an image of (height, width), in their order.

        `names` are those of all classes; by default each detection's own "class_name", or else its class index. Where
        there are no scores they are 1, and no classes, all are class 0.
        """
        number = len(found)
        labels = np.zeros(number, np.int64) if found.class_id is None else np.asarray(found.class_id, np.int64)
        scores = np.ones(number, np.float32) if found.confidence is None else np.asarray(found.confidence, np.float32)
        if names is None:
            own = [str(name) for name in found.data.get("class_name", labels)]
        elif number and not 0 <= labels.min() <= labels.max() < len(names):
            raise ValueError(f"names: expected one for each class up to {labels.max()}, got {len(names)}")
        else:
            own = [names[label] for label in labels.tolist()]
        return cls(np.asarray(found.xyxy, np.float32).reshape(-1, 4), scores, labels, own, image_size,
                   tracks=None if found.tracker_id is None else np.asarray(found.tracker_id, np.int64))


def _library(name: str) -> Any:
    """A library that not everyone needs. Raises ImportError, which says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs {name} ({error}): pip install 'deformable-detr[{name}]'") from error


@dataclass(frozen=True)
class Postprocessing:
    """How predictions become detections; kept with the weights.

    Attributes:
        threshold: The lowest score of a detection that is shown, unless the caller gives another.
        nms_threshold: Of two boxes of a class with a higher IoU only the better one is kept, as in DETA (arXiv
            2212.06137), for short trainings that leave objects boxed twice; 1 keeps both, as published.
    """

    threshold: float = 0.5
    nms_threshold: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected a value in [0, 1], got {self.threshold}")
        if not 0 < self.nms_threshold <= 1:
            raise ValueError(f"nms_threshold: expected a value in (0, 1], got {self.nms_threshold}")


PUBLISHED = Postprocessing()


def best_detections(scores: Float[Tensor, "B Q K"], boxes: Float[Tensor, "B Q 4"],
                    image_sizes: Sequence[ImageSize] | Tensor | np.ndarray, top_k: int = 100,
                    names: Sequence[str] | None = None, nms_threshold: float = 1.0, *,
                    classes: Sequence[int] | None = None, one_class_each: bool = False) -> list[Detections]:
    """The `top_k` highest scores over query x class of each image, best first; see `Predictions.detections`.

    Raises ValueError for scores or boxes that are not finite.
    """
    batch, _, num_classes = scores.shape
    sizes = [(int(height), int(width)) for height, width in image_sizes]
    if len(sizes) != batch:
        raise ValueError(f"image_sizes: expected {batch} (height, width) pairs, got {len(sizes)}")
    if names is not None and len(names) != num_classes:
        raise ValueError(f"names: expected {num_classes} names, one a class, got {len(names)}")
    labels = torch.arange(num_classes, device=scores.device).expand_as(scores)
    if one_class_each:
        scores, labels = scores.max(-1, keepdim=True)
    if classes is not None:
        scores = scores.masked_fill(~torch.isin(labels, labels.new_tensor(list(classes))), UNWANTED)
    candidates = scores.flatten(1)
    num_kept = min(top_k, candidates.shape[1]) if nms_threshold == 1 else candidates.shape[1]
    best, order = candidates.topk(num_kept, dim=1)
    corners = cxcywh_to_xyxy(boxes.float())
    queries = order // scores.shape[2]
    corners = corners.gather(1, queries[..., None].expand(-1, -1, 4))
    corners = corners * corners.new_tensor([(width, height, width, height) for height, width in sizes])[:, None]
    tensors = (corners, best, labels.flatten(1).gather(1, order), queries)
    arrays = [tensor.detach().cpu().numpy() for tensor in tensors]
    if not all(np.isfinite(array).all() for array in arrays):   # NaN comes first in topk, so none is overlooked
        raise ValueError(NOT_FINITE)
    class_names = list(names) if names is not None else [str(index) for index in range(num_classes)]
    found = [Detections(box, score, label, [class_names[index] for index in label], size, query)
             for box, score, label, query, size in zip(*arrays, sizes, strict=True)]
    if classes is not None:
        found = [detections.above(0) for detections in found]
    return found if nms_threshold == 1 else [detections.suppressed(nms_threshold, top_k) for detections in found]

