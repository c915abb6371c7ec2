"""From a decoded image and its boxes to the model's input and target."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, lcm
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from deformable_detr.boxes import xyxy_to_cxcywh
from deformable_detr.loading.mosaic import visible
from deformable_detr.preprocessing import Preprocessing, normalised
from deformable_detr.structures import ImageSize, Target

CANVAS_ASPECT = 4 / 3
CANVAS_MULTIPLE = 32      # the backbone's stride


def eval_transform(preprocessing: Preprocessing) -> "ImageTransform":
    """Resizing and normalisation, nothing random."""
    return ImageTransform(preprocessing)


class ImageTransform:
    """Augmentation, resizing to a random short side or into one of a few canvases, colours, normalisation.

    Without `short_sides` the preprocessing's size is used; the canvases are `scales` times it. `colours` are changed
    last, since the resized image has far fewer pixels. With a `mosaic` the data set may combine several images;
    `plain` is used in the last epochs instead, by default the same.
    """

    def __init__(self, preprocessing: Preprocessing, augmentation: Sequence[v2.Transform] = (),
                 short_sides: Sequence[int] = (), scales: Sequence[float] = (), colours: Sequence[v2.Transform] = (),
                 mosaic: "Mosaic | None" = None, plain: "ImageTransform | None" = None) -> None:
        self.preprocessing = preprocessing
        self.mosaic, self.plain = mosaic, plain or self
        self.scales = tuple(scales)
        self.augmentation, self.colours = tuple(augmentation), tuple(colours)
        rules = [replace(preprocessing, size=side) for side in short_sides]
        self.resize = RandomResize(rules or [preprocessing])

    def canvases(self, size: ImageSize) -> tuple[ImageSize, ...]:
        """The canvases, (height, width), that an image of this size may be fitted into; without any, all shapes occur.

        They depend only on the image's orientation, so that a data set needs few.
        """
        height, width = size
        aspect = CANVAS_ASPECT if max(size) > 1.1 * min(size) else 1.0
        multiple = lcm(CANVAS_MULTIPLE, self.preprocessing.divisor)
        found = []
        for scale in self.scales:
            short = scale * self.preprocessing.size
            long = min(short * aspect, scale * self.preprocessing.max_size)
            small, large = (ceil(side / multiple - 1e-9) * multiple for side in (short, long))
            found.append((small, large) if width >= height else (large, small))
        return tuple(found)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], boxes: Float[Tensor, "t 4"],
                 labels: Int64[Tensor, "t"], image_id: int | str | None = None,
                 canvas: ImageSize | None = None) -> tuple[Float[Tensor, "3 H W"], Target]:
        """The normalised image and its target; `boxes` are xyxy in pixels. Random by torch's generator."""
        pixels = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        height, width = pixels.shape[1:]
        # torchvision declares no arguments for this constructor
        framed = tv_tensors.BoundingBoxes(  # pyright: ignore[reportCallIssue]
            boxes, format="XYXY", canvas_size=(height, width))
        sample: dict[str, Any] = {"image": pixels, "boxes": framed, "labels": labels}
        for step in self.augmentation:
            sample = step(sample)
        sample = (self.resize if canvas is None else Fit(canvas))(sample)
        if self.augmentation:   # drops objects that a crop has cut off whole, however small the others are
            kept = (sample["boxes"][:, 2:] > sample["boxes"][:, :2]).all(dim=1)
            sample |= {name: sample[name][kept] for name in ("boxes", "labels")}
        for step in self.colours:
            sample = step(sample)
        pixels = sample["image"].as_subclass(Tensor)
        height, width = pixels.shape[1:]
        scale = torch.tensor([width, height, width, height])
        boxes = xyxy_to_cxcywh(sample["boxes"].as_subclass(Tensor)) / scale
        return normalised(pixels, self.preprocessing), Target(sample["labels"], boxes, image_id)


@dataclass(frozen=True)
class Mosaic:
    """How often four images are combined, and how the result is transformed."""

    chance: float
    transform: ImageTransform


class Resized(v2.Transform):
    """Resizes image and boxes to the size that the subclass's `make_params` chooses."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return v2.functional.resize(inpt, params["size"], antialias=True)


class RandomResize(Resized):
    """Resizes by a random one of several rules."""

    def __init__(self, rules: Sequence[Preprocessing]) -> None:
        super().__init__()
        self.rules = tuple(rules)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        rule = self.rules[_draw(0, len(self.rules) - 1)]
        height, width = v2.query_size(flat_inputs)
        return {"size": list(rule.resized((height, width)))}


class Fit(Resized):
    """Resizes to the largest size that a canvas holds, keeping the proportions."""

    def __init__(self, canvas: ImageSize) -> None:
        super().__init__()
        self.canvas = canvas

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        size = v2.query_size(flat_inputs)
        factor = min(room / extent for room, extent in zip(self.canvas, size, strict=True))
        return {"size": [max(1, min(room, round(extent * factor)))
                         for room, extent in zip(self.canvas, size, strict=True)]}


class RandomCrop(v2.Transform):
    """Cuts out a window whose height and width are random between two bounds, at most the image's own.

    The bounds are pixels, or if they are floats, shares of the image.
    """

    def __init__(self, least: float, most: float) -> None:
        super().__init__()
        self.least, self.most = least, most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        whole_height, whole_width = v2.query_size(flat_inputs)
        height, width = self._side(whole_height), self._side(whole_width)
        return {"top": _draw(0, whole_height - height), "left": _draw(0, whole_width - width),
                "height": height, "width": width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return v2.functional.crop(inpt, **params)

    def _side(self, extent: int) -> int:
        least, most = (ceil(bound * extent) if isinstance(bound, float) else bound
                       for bound in (self.least, self.most))
        return _draw(min(least, extent), min(most, extent))


class RandomCloseUp(RandomCrop):
    """A crop that drops objects of which too little remains to be recognised."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        output = super().transform(inpt, params)
        if isinstance(output, tv_tensors.BoundingBoxes):
            output[~visible(inpt.as_subclass(Tensor), output.as_subclass(Tensor))] = 0   # dropped by sanitising
        return output


class QuarterTurn(v2.Transform):
    """Rotates by 0, 90, 180 or 270 degrees, counter-clockwise; every pixel stays as it is."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002  (the signature of v2.Transform)
        return {"angle": 90.0 * _draw(0, 3)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return v2.functional.rotate(inpt, params["angle"], expand=True)


def _draw(least: int, most: int) -> int:
    """A whole number in [least, most] from torch's generator."""
    return int(torch.randint(least, most + 1, ()))
