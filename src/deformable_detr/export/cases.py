"""The batches on which an exported file is compared: real images at two sizes, alone and together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from deformable_detr.export.metadata import Form, fitted
from deformable_detr.preprocessing import Preprocessing, normalised, resize_image
from deformable_detr.structures import ImageSize

SCALES = (1.0, 0.75, 0.5)       # of the preprocessing's size
TOGETHER = 3                    # images of unequal sizes in one batch

Pixels = UInt8[np.ndarray, "_ _ 3"]      # of several heights and widths


@dataclass(frozen=True)
class Case:
    """A batch as the file takes it."""

    images: Tensor                      # (B, 3, H, W), uint8 or normalised
    sizes: Int64[Tensor, "B 2"]         # (height, width) before padding
    originals: tuple[ImageSize, ...]    # before resizing

    def __str__(self) -> str:
        sides = ", ".join(f"{width}x{height}" for height, width in self.sizes.tolist())
        return f"batch of {len(self.sizes)}: {sides}"


def cases(pictures: Iterable[Pixels], preprocessing: Preprocessing, form: Form) -> Iterator[Case]:
    """Each picture alone at the usual size and a smaller one, and three together, each at another size.

    With a fixed batch they are taken so many at a time, with a fixed size they are padded to it. Only one batch of
    pictures, and the three, are held.
    """
    preprocessing = fitted(preprocessing, form)
    scaled = [_scaled(preprocessing, scale) for scale in SCALES]
    remaining, step, together = iter(pictures), form.batch or 1, list[Pixels]()
    while batch := list(islice(remaining, step)):
        together += batch[:TOGETHER - len(together)]
        for each in scaled[:2]:
            yield case_of([(picture, each) for picture in islice(cycle(batch), step)], form)
    if form.batch is None:
        yield case_of(list(zip(cycle(together), scaled, strict=False)), form)


def _scaled(preprocessing: Preprocessing, scale: float) -> Preprocessing:
    size, longest = (max(1, round(side * scale)) for side in (preprocessing.size, preprocessing.max_size))
    return replace(preprocessing, size=size, max_size=longest)


def calibration_batches(pictures: Iterable[Pixels], preprocessing: Preprocessing, form: Form) -> Iterator[Case]:
    """Each picture at the usual size; with a fixed batch each fills one alone."""
    preprocessing = fitted(preprocessing, form)
    for picture in pictures:
        yield case_of([(picture, preprocessing)] * (form.batch or 1), form)


def case_of(chosen: Sequence[tuple[Pixels, Preprocessing]], form: Form) -> Case:
    """Pictures, each resized by its own preprocessing, in one batch."""
    resized = [resize_image(picture, preprocessing) for picture, preprocessing in chosen]
    sizes = torch.tensor([image.shape[1:] for image in resized])
    height, width = form.size or sizes.amax(0).tolist()
    prepared = [normalised(image, preprocessing) if form.raw else image
                for image, (_, preprocessing) in zip(resized, chosen, strict=True)]
    images = torch.zeros(len(chosen), 3, height, width, dtype=prepared[0].dtype)
    for row, image in zip(images, prepared, strict=True):
        row[:, :image.shape[1], :image.shape[2]] = image
    return Case(images, sizes, tuple((picture.shape[0], picture.shape[1]) for picture, _ in chosen))
