"""Small images, and the message for a bad one."""

import numpy as np
import pytest

from deformable_detr.images import ImageError, read_image

RAMP = np.arange(256, dtype=np.uint8).repeat(2).reshape(1, 512).repeat(3, axis=0)      # grey, every value


def colours(height: int = 24, width: int = 40) -> np.ndarray:
    """A smooth image without symmetry, so that every orientation differs."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 6, y * 10, 255 - x * 3 - y * 4], axis=2).astype(np.uint8)


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels of an upright image as a file with this EXIF orientation holds them."""
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
              5: upright.swapaxes(0, 1), 6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1),
              8: np.rot90(upright, -1)}[orientation]
    return np.ascontiguousarray(turned)


def refusal(source: object) -> str:
    """The message with which an image is refused; it is one line that any terminal can show."""
    with pytest.raises(ImageError) as error:
        read_image(source)  # type: ignore[arg-type]
    assert str(error.value).isprintable()
    assert str(error.value).encode()
    return str(error.value)
