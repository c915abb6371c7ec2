"""Which images come several times an epoch, so that rare classes are seen more often (LVIS, arXiv 1908.03195)."""

import numpy as np
from jaxtyping import Int64

from deformable_detr.loading.targets import TrainingObjects


def image_repeats(targets: TrainingObjects, num_classes: int, threshold: float, seed: int) -> Int64[np.ndarray, "P"]:
    """How often each image comes in an epoch, at least once: LVIS' repeat factor sampling.

    Of a class in a share f of the images, less than `threshold`, images come sqrt(threshold / f) times, and an image
    with several classes as often as the rarest asks. Where that is no whole number, `seed` decides once for all epochs
    which images come once more, so that all epochs are equally long.
    """
    num_images = len(targets.starts) - 1
    image_index = np.repeat(np.arange(num_images), np.diff(targets.starts))
    has_class = np.zeros((num_images, num_classes), bool)
    has_class[image_index, targets.labels] = True
    share = np.maximum(has_class.mean(axis=0), 1e-12)      # of a class without objects nothing is multiplied
    factors = np.maximum(1.0, np.sqrt(threshold / share))
    asked = np.where(has_class, factors, 1.0).max(axis=1, initial=1.0)
    whole = np.floor(asked)
    once_more = np.random.default_rng(seed).random(num_images) < asked - whole
    return whole.astype(np.int64) + once_more
