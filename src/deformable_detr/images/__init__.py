"""Any image as upright RGB bytes: a file, its content, a Pillow image, an array or a tensor.

Files are not trusted: only formats whose decoders run inside this process are read, the number of pixels is bounded,
and whatever is wrong is an ImageError.
"""

from deformable_detr.images.errors import ImageError
from deformable_detr.images.finding import FoundImages, LeftOut, find_images
from deformable_detr.images.opening import (
    FORMATS,
    MAX_PIXELS,
    SUFFIXES,
    begins_as_image,
    is_deep,
    num_frames,
    open_image,
)
from deformable_detr.images.orientation import EXIF_ORIENTATION, QUARTER_TURNS, UPRIGHT, orientation_of, upright_size
from deformable_detr.images.reading import ImageSource, is_single_image, iterate_images, read_image
from deformable_detr.images.scaling import GreyRange, is_nearly_black

__all__ = ["EXIF_ORIENTATION", "FORMATS", "MAX_PIXELS", "QUARTER_TURNS", "SUFFIXES", "UPRIGHT", "FoundImages",
           "GreyRange", "ImageError", "ImageSource", "LeftOut", "begins_as_image", "find_images", "is_deep",
           "is_nearly_black", "is_single_image", "iterate_images", "num_frames", "open_image", "orientation_of",
           "read_image", "upright_size"]
