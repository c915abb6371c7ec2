"""Images from any source, decoded to RGB bytes."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Union, cast

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from deformable_detr.images.arrays import is_tensor, rgb_of_array, rgb_of_tensor
from deformable_detr.images.errors import name_of, one_error
from deformable_detr.images.opening import FileSource, check_extent, is_deep, is_file, open_image
from deformable_detr.images.orientation import turned_upright
from deformable_detr.images.scaling import GreyRange, check_grey_range, scaled_to_bytes, warn_if_nearly_black

if TYPE_CHECKING:
    import torch

ImageSource = Union[FileSource, PIL.Image.Image, np.ndarray, "torch.Tensor"]

FULL_RANGE = ("PNG", "PPM")   # formats whose deep grey is scaled to 0..65535 by definition


def read_image(source: ImageSource, *, upright: bool = True,
               grey_range: GreyRange | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """The image as RGB, in a new, writable array; turned upright by EXIF unless `upright` is False.

    Accepts a path, the bytes of a file, a binary file object, a Pillow image, an array (H, W) or (H, W, channels) and
    a tensor (channels, H, W) or (H, W); arrays and tensors of uint8, uint16 or floats in [0, 1]. Of several pages or
    frames in a file the first is returned; `num_frames` counts them. Transparency is dropped, not blended, as in the
    usual loaders of training data. A TIFF that Pillow opened is turned by Pillow even if `upright` is False.

    Values of more than 8 bits are scaled. `grey_range` is (black, white), or "auto" for the least and the greatest
    value of each image, which loses how images compare. By default floats are in [0, 1] and integers in 0..65535, but
    in 0..255 in a file of 32-bit integers with none greater. If the result is nearly black, that is logged. Colour
    files of 16 bits keep their upper 8 whatever `grey_range` is.

    Raises ImageError if there is no such image, it cannot be decoded, or it has another shape or type; ValueError
    for a wrong `grey_range`.
    """
    check_grey_range(grey_range)
    name = name_of(source)
    with one_error(name):
        if isinstance(source, PIL.Image.Image):
            return _decoded(source, upright, grey_range, name)
        if isinstance(source, np.ndarray):
            return rgb_of_array(source, grey_range)
        if is_tensor(source):
            return rgb_of_tensor(cast("torch.Tensor", source), grey_range)
        if not is_file(source):
            raise ValueError(f"expected a path, bytes, a binary file, a Pillow image, an array or a tensor, "
                             f"got {type(source).__name__}")
        with open_image(source) as image:
            return _decoded(image, upright, grey_range, name)


def is_single_image(source: object) -> bool:
    """Whether it is one image, or nothing that could be images, rather than an iterable of images or a batch.

    Arrays and tensors of at most three dimensions are one image; a batch is (B, H, W, channels) as an array and
    (B, channels, H, W) as a tensor.
    """
    if isinstance(source, np.ndarray):
        return source.ndim <= 3 and source.dtype.kind not in "OSU"   # which hold paths or images
    if is_tensor(source):
        return cast("torch.Tensor", source).ndim <= 3
    return is_file(source) or isinstance(source, PIL.Image.Image) or not isinstance(source, Iterable)


def iterate_images(source: ImageSource | Iterable[ImageSource]) -> Iterator[ImageSource]:
    """The one image, or each image of an iterable or a batch, one by one."""
    return iter([cast("ImageSource", source)] if is_single_image(source) else cast("Iterable[ImageSource]", source))


def _decoded(image: PIL.Image.Image, upright: bool, grey_range: GreyRange | None, name: str) -> np.ndarray:
    check_extent(image)
    deep, full_range = is_deep(image), image.format in FULL_RANGE
    if image.format == "TIFF" and getattr(image, "tile", ()):
        image.filename = ""   # pyright: ignore[reportAttributeAccessIssue] - Pillow would map it, and turn it wrongly
    image.load()
    if upright:
        image = turned_upright(image)
    if image.mode.startswith(("I", "F")):
        grey = scaled_to_bytes(np.asarray(image), grey_range, 65535 if full_range else None)
        pixels = np.repeat(grey[..., None], 3, axis=2)
    else:
        if isinstance(image.info.get("transparency"), bytes):   # Pillow warns when such an image becomes RGB directly
            image = image.convert("RGBA")
        pixels = np.array(image.convert("RGB"))
    if deep and grey_range is None:
        warn_if_nearly_black(pixels, name)
    return pixels
