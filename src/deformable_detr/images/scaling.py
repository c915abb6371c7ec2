"""Values of more than 8 bits scaled to bytes: which value becomes black, and which white."""

import logging
import math
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Num, UInt8

GreyRange = tuple[float, float] | Literal["auto"]

LOGGER = logging.getLogger(__name__)

# Rounding errors of a resize go beyond 0 and 1; anything further is another scale, most often 0..255.
TOLERANCE = 1e-3
NEARLY_BLACK = 16   # of 255: 12 bits in 16 end there, 8 bits in 16 at 1


def check_grey_range(grey_range: GreyRange | None) -> None:
    """Raises ValueError for a range that is not None, "auto" or two finite numbers in increasing order."""
    if grey_range is None or (isinstance(grey_range, str) and grey_range == "auto"):
        return
    if isinstance(grey_range, str) or len(grey_range) != 2 or not (
            all(map(math.isfinite, grey_range)) and grey_range[0] < grey_range[1]):
        raise ValueError(f'grey_range: expected "auto" or two finite numbers (black, white) in increasing order, '
                         f"got {grey_range!r}")


def scaled_to_bytes(values: Num[np.ndarray, "*shape"], grey_range: GreyRange | None,
                    white: int | None = None) -> UInt8[np.ndarray, "*shape"]:
    """Values as bytes: the two ends of the range become 0 and 255, values beyond are clipped.

    "auto" takes the least and the greatest of the values. Without a range, floats must be in [0, 1], 16-bit integers
    are in 0..65535 whatever they hold, and wider integers, for which there is no convention, in 0..`white`; without
    `white` in 0..255 if none is greater, else in 0..65535. Raises ValueError for values beyond these, or not finite.
    """
    least, greatest = float(values.min()), float(values.max())
    if not (math.isfinite(least) and math.isfinite(greatest)):
        raise ValueError(f"values must be finite, got {least:g}..{greatest:g}")
    if grey_range is None:
        low, high = 0.0, _usual_white(values.dtype, greatest, white)
        slack = TOLERANCE if values.dtype.kind == "f" else 0
        if least < -slack or greatest > high + slack:
            raise ValueError(f"values of {values.dtype} must be in 0..{high:g}, got {least:g}..{greatest:g}; "
                             f"give their black and white as grey_range, or bytes in a uint8 array")
    else:
        low, high = (least, greatest) if isinstance(grey_range, str) else grey_range
    exact = np.float32 if values.dtype.itemsize <= 2 else np.float64
    scale = 255 / (high - low) if high > low else 0.0
    return np.rint(((values.astype(exact) - exact(low)) * exact(scale)).clip(0, 255)).astype(np.uint8)


def is_nearly_black(pixels: UInt8[np.ndarray, "*shape"]) -> bool:
    """Whether pixels are not all black, but so dark that their values were probably on another scale."""
    return 0 < int(pixels.max(initial=0)) <= NEARLY_BLACK


def _usual_white(dtype: np.dtype, greatest: float, white: int | None) -> float:
    if dtype.kind == "f":
        return 1.0
    if dtype.itemsize <= 2:
        return 65535.0
    return white or (255.0 if greatest <= 255 else 65535.0)


def warn_if_nearly_black(pixels: UInt8[np.ndarray, "*shape"], name: str) -> None:
    """Log, once for each `name`, that an image of more than 8 bits turned out nearly black."""
    if is_nearly_black(pixels):
        _warn_once(f"{name}: nearly black, as its values are far below the white of their type; if white is a lower "
                   "value, save it with 8 bits, or read it by read_image(..., grey_range=(black, white))")


@lru_cache(maxsize=1024)   # training reads an image in every epoch
def _warn_once(message: str) -> None:
    LOGGER.warning(message)
