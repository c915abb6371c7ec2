"""From a decoded image and its boxes to what the model trains on or looks at: the steps."""

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
    """Augmentation, resizing to a drawn short side or into one of few canvases, colours, normalisation.

    Without `short_sides` the preprocessing's size counts; `scales` of it make the canvases. `colours` are changed
    last, as a photograph has far more pixels than what the model sees of it. With a `mosaic` the data set may put
    other images beside; `plain` is what the last epochs use instead, by default the same.
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
        """The canvases, (height, width), that an image of this size may be fitted into; none: any shape.

        They depend on nothing but the orientation, so that a data set needs few.
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
        """The normalised image and its target; `boxes` are xyxy in pixels, chance is torch's generator."""
        pixels = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        height, width = pixels.shape[1:]
        # torchvision declares no arguments for this constructor
        framed = tv_tensors.BoundingBoxes(  # pyright: ignore[reportCallIssue]
            boxes, format="XYXY", canvas_size=(height, width))
        sample: dict[str, Any] = {"image": pixels, "boxes": framed, "labels": labels}
        for step in self.augmentation:
            sample = step(sample)
        sample = (self.resize if canvas is None else Fit(canvas))(sample)
        if self.augmentation:
            sample = v2.SanitizeBoundingBoxes()(sample)     # those that a crop has cut to less than a pixel
        for step in self.colours:
            sample = step(sample)
        pixels = sample["image"].as_subclass(Tensor)
        height, width = pixels.shape[1:]
        scale = torch.tensor([width, height, width, height])
        boxes = xyxy_to_cxcywh(sample["boxes"].as_subclass(Tensor)) / scale
        return normalised(pixels, self.preprocessing), Target(sample["labels"], boxes, image_id)


@dataclass(frozen=True)
class Mosaic:
    """How often four images are put together, and what is then done with them."""

    chance: float
    transform: ImageTransform


class Resized(v2.Transform):
    """Base of the transforms that resize image and boxes to the size that `make_params` decides on."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return v2.functional.resize(inpt, params["size"], antialias=True)


class RandomResize(Resized):
    """Resizes by a rule drawn from several."""

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
    """Cuts out a window; its height and width are drawn between two bounds, at most the image's own.

    The bounds are pixels, or shares of the image where they are floats.
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
    """A crop that forgets objects of which too little is left to know them by."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        output = super().transform(inpt, params)
        if isinstance(output, tv_tensors.BoundingBoxes):
            output[~visible(inpt.as_subclass(Tensor), output.as_subclass(Tensor))] = 0   # sanitising takes these away
        return output


def _draw(least: int, most: int) -> int:
    """A whole number in [least, most] from torch's generator."""
    return int(torch.randint(least, most + 1, ()))
