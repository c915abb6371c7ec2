"""How training images are changed: the paper's way, and two for few images."""

from dataclasses import replace

from torchvision.transforms import v2

from deformable_detr.loading.transforms import ImageTransform, Mosaic, RandomCloseUp, RandomCrop, RandomResize
from deformable_detr.preprocessing import Preprocessing

PUBLISHED_SIZE = 800                        # the short side which the published numbers below belong to
SHORT_SIDES = range(480, 801, 32)
SHORT_SIDES_BEFORE_CROP = (400, 500, 600)
CROP_SIDES = (384, 600)
LONGEST_BEFORE_CROP = 4                     # times max_size; published without bound, but for 1 x 4000 pixels

CANVAS_SCALES = (0.75, 0.875, 1.0)          # of the preprocessing's size: three shapes for each orientation
MOSAIC_CHANCE = 0.5


def train_transform(augmentation: str, preprocessing: Preprocessing) -> ImageTransform:
    """Random augmentation, then resizing and normalisation.

    "published" is the paper's: flip, and a random short side, for half the images after a random crop; the
    sizes are in proportion to the preprocessing's. "small" is for small data and small machines: flip, mild
    zoom in and out, mild colour changes, few output shapes. "strong" goes farther in all of these, and puts four
    images together; it is for few images and many epochs. Raises ValueError for another name.
    """
    named = {"published": _published, "small": _small, "strong": _strong}
    if augmentation not in named:
        raise ValueError(f"augmentation: expected 'published', 'small' or 'strong', got {augmentation!r}")
    return named[augmentation](preprocessing)


def _published(preprocessing: Preprocessing) -> ImageTransform:
    def scaled(side: float) -> int:
        return max(1, round(side * preprocessing.size / PUBLISHED_SIZE))

    before_crop = RandomResize([
        replace(preprocessing, size=scaled(side), max_size=LONGEST_BEFORE_CROP * preprocessing.max_size)
        for side in SHORT_SIDES_BEFORE_CROP])
    crop = v2.Compose([before_crop, RandomCrop(*(scaled(side) for side in CROP_SIDES))])
    return ImageTransform(preprocessing, [v2.RandomHorizontalFlip(), v2.RandomApply([crop])],
                          short_sides=[scaled(side) for side in SHORT_SIDES])


def _small(preprocessing: Preprocessing) -> ImageTransform:
    zoom_out = v2.RandomZoomOut(_ground(preprocessing), (1.0, 1.5), p=1.0)
    return ImageTransform(preprocessing, [
        v2.RandomHorizontalFlip(),
        v2.RandomChoice([v2.Identity(), RandomCrop(0.6, 1.0), zoom_out]),
    ], scales=CANVAS_SCALES, colours=[v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)])


def _strong(preprocessing: Preprocessing) -> ImageTransform:
    flip = v2.RandomHorizontalFlip()
    zoom_out = v2.RandomZoomOut(_ground(preprocessing), (1.0, 2.0), p=1.0)
    scale = v2.RandomChoice([v2.Identity(), RandomCloseUp(0.3, 1.0), zoom_out], p=[0.25, 0.5, 0.25])
    colours = [
        v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.5, hue=0.05)], p=0.8),
        v2.RandomGrayscale(0.05),
        v2.RandomAdjustSharpness(0, p=0.1),    # blurs
    ]
    # Images that are put together have been cut and scaled already.
    together = Mosaic(MOSAIC_CHANCE, ImageTransform(preprocessing, [flip], colours=colours))
    return ImageTransform(preprocessing, [flip, scale], scales=CANVAS_SCALES, colours=colours, mosaic=together,
                          plain=_small(preprocessing))


def _ground(preprocessing: Preprocessing) -> tuple[int, ...]:
    """The colour that normalisation makes zero."""
    return tuple(round(255 * mean) for mean in preprocessing.mean)
