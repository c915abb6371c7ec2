"""Augmentation of training images: the published one, and two for smaller data sets."""

from dataclasses import replace
from typing import Literal, get_args

from torchvision.transforms import v2

from deformable_detr.loading.transforms import (
    ImageTransform,
    Mosaic,
    QuarterTurn,
    RandomCloseUp,
    RandomCrop,
    RandomResize,
)
from deformable_detr.preprocessing import Preprocessing

PUBLISHED_SIZE = 800                        # the short side to which the published numbers below belong
SHORT_SIDES = range(480, 801, 32)
SHORT_SIDES_BEFORE_CROP = (400, 500, 600)
CROP_SIDES = (384, 600)
LONGEST_BEFORE_CROP = 4                     # times max_size; unbounded as published, too long for 1 x 4000 pixels

CANVAS_SCALES = (0.75, 0.875, 1.0)          # of the preprocessing's size: three shapes for each orientation
MOSAIC_CHANCE = 0.5


Flip = Literal["horizontal", "vertical", "both", "none"]


def train_transform(augmentation: str, preprocessing: Preprocessing, flip: Flip = "horizontal", *,
                    quarter_turns: bool = False) -> ImageTransform:
    """Random augmentation, then resizing and normalisation.

    "published" is the paper's: flip, and a random short side, for half of the images after a random crop; the
    sizes scale with the preprocessing's. "small" is for small data sets and machines: flip, mild zoom in and out,
    mild colour changes, few output shapes. "strong" does more of all of these, and mosaics; it is for few images
    and many epochs.

    `flip` mirrors half of the images left to right, upside down, each independently, or none. `quarter_turns` rotates
    them by a random multiple of 90 degrees. Raises ValueError for another augmentation or flip.
    """
    named = {"published": _published, "small": _small, "strong": _strong}
    if augmentation not in named:
        raise ValueError(f"augmentation: expected 'published', 'small' or 'strong', got {augmentation!r}")
    if flip not in get_args(Flip):
        raise ValueError(f"flip: expected one of {', '.join(get_args(Flip))}, got {flip!r}")
    return named[augmentation](preprocessing, _turned(flip, quarter_turns))


def _turned(flip: Flip, quarter_turns: bool) -> list[v2.Transform]:
    """How images are mirrored and rotated."""
    flips: dict[Flip, list[v2.Transform]] = {
        "horizontal": [v2.RandomHorizontalFlip()], "vertical": [v2.RandomVerticalFlip()],
        "both": [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()], "none": []}
    return [*flips[flip], *([QuarterTurn()] if quarter_turns else [])]


def _published(preprocessing: Preprocessing, turned: list[v2.Transform]) -> ImageTransform:
    def scaled(side: float) -> int:
        return max(1, round(side * preprocessing.size / PUBLISHED_SIZE))

    before_crop = RandomResize([
        replace(preprocessing, size=scaled(side), max_size=LONGEST_BEFORE_CROP * preprocessing.max_size)
        for side in SHORT_SIDES_BEFORE_CROP])
    crop = v2.Compose([before_crop, RandomCrop(*(scaled(side) for side in CROP_SIDES))])
    return ImageTransform(preprocessing, [*turned, v2.RandomApply([crop])],
                          short_sides=[scaled(side) for side in SHORT_SIDES])


def _small(preprocessing: Preprocessing, turned: list[v2.Transform]) -> ImageTransform:
    zoom_out = v2.RandomZoomOut(_zero_colour(preprocessing), (1.0, 1.5), p=1.0)
    return ImageTransform(preprocessing, [
        *turned,
        v2.RandomChoice([v2.Identity(), RandomCrop(0.6, 1.0), zoom_out]),
    ], scales=CANVAS_SCALES, colours=[v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)])


def _strong(preprocessing: Preprocessing, turned: list[v2.Transform]) -> ImageTransform:
    zoom_out = v2.RandomZoomOut(_zero_colour(preprocessing), (1.0, 2.0), p=1.0)
    scale = v2.RandomChoice([v2.Identity(), RandomCloseUp(0.3, 1.0), zoom_out], p=[0.25, 0.5, 0.25])
    colours = [
        v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.5, hue=0.05)], p=0.8),
        v2.RandomGrayscale(0.05),
        v2.RandomAdjustSharpness(0, p=0.1),    # blurs
    ]
    # The images of a mosaic have been cut and scaled already.
    together = Mosaic(MOSAIC_CHANCE, ImageTransform(preprocessing, turned, colours=colours))
    return ImageTransform(preprocessing, [*turned, scale], scales=CANVAS_SCALES, colours=colours, mosaic=together,
                          plain=_small(preprocessing, turned))


def _zero_colour(preprocessing: Preprocessing) -> tuple[int, ...]:
    """The colour that normalisation turns into zero."""
    return tuple(round(255 * mean) for mean in preprocessing.mean)
