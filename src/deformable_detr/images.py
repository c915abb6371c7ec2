"""Any image as upright RGB bytes: a file, its content, a Pillow image, an array or a tensor.

Files are untrusted: a few formats whose decoders run inside this process, a bounded number of pixels, and one
error for everything that can be wrong with them.
"""

import glob
import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
import PIL.Image
from jaxtyping import UInt8

if TYPE_CHECKING:
    import torch

# torch is named, not imported: whoever hands a tensor in has imported it already.
ImageSource = Union[str, Path, bytes, PIL.Image.Image, np.ndarray, "torch.Tensor"]

MAX_PIXELS = 120_000_000   # a telephone's 108 megapixels fit; decoded they take half a gigabyte

# Each decoded inside this process: no EPS, which would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".bmp", ".gif",
                      ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2"})

EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
QUARTER_TURNS = (5, 6, 7, 8)    # width and height change places


class ImageError(ValueError):
    """An image that cannot be read; one line, which names the file."""

    def reason_for(self, source: Path | bytes) -> str:
        """The line without the name, for those who name the file themselves."""
        return str(self).removeprefix(f"{'image' if isinstance(source, bytes) else source}: ")


def read_image(source: ImageSource, *, upright: bool = True) -> UInt8[np.ndarray, "H W 3"]:
    """The image as RGB, a writable array of its own; turned upright by EXIF unless `upright` is False.

    Accepts a path, the bytes of a file, a Pillow image, a uint8 array (H, W, 3) of RGB or (H, W) of grey, a
    tensor (3, H, W) of uint8 or of floats in [0, 1]. Of an animation the first frame counts; 16-bit grey is
    scaled to 8 bits.
    Transparency is dropped, not blended: these are the colours that the usual loaders of training data see.
    Raises ImageError when there is no such image, it cannot be decoded, or it has another shape or type.
    """
    torch = sys.modules.get("torch")
    if isinstance(source, str | Path | bytes):
        with open_image(Path(source) if isinstance(source, str) else source) as image:
            return _decoded(image, upright)
    if isinstance(source, PIL.Image.Image):
        with _one_error("image"):
            return _decoded(source, upright)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if torch is not None and isinstance(source, torch.Tensor):
        return _from_tensor(source)
    raise ImageError(f"image: expected a path, bytes, a Pillow image, an array or a tensor, "
                     f"got {type(source).__name__}")


@contextmanager
def open_image(source: Path | bytes) -> Iterator[PIL.Image.Image]:
    """A file, or its bytes, as Pillow knows it before it decodes any pixel.

    Raises ImageError where that fails, and for whatever Pillow raises within the block.
    """
    PIL.Image.init()
    formats = [name for name in FORMATS if name in PIL.Image.OPEN]   # Pillow is built without some at times
    if isinstance(source, Path):
        _check_regular(source)
    with _one_error("image" if isinstance(source, bytes) else str(source)):
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
            raise ValueError("the file is empty")
        with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
            _check_extent(image)
            yield image


def upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    """(height, width) of an opened image once EXIF has turned it."""
    width, height = image.size
    return (width, height) if orientation_of(image) in QUARTER_TURNS else (height, width)


def _check_regular(path: Path) -> None:
    if path.is_dir():
        raise ImageError(f"{path}: expected an image, got a folder")
    if not path.exists():
        raise ImageError(f"{path}: no such file")
    if not path.is_file():   # reading a pipe or a device may never end
        raise ImageError(f"{path}: not a regular file")


@contextmanager
def _one_error(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises into a ImageError that begins with `name`; its warnings are dropped."""
    try:
        with warnings.catch_warnings(action="ignore"):   # of size, which is checked, and of odd metadata
            yield
    except PIL.UnidentifiedImageError:
        reason = "not an image, or its format is not supported"
    except PIL.Image.DecompressionBombError:
        reason = f"more than {MAX_PIXELS:,} pixels"
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:   # over a damaged file Pillow's decoders raise almost anything
        reason = str(error) or f"damaged ({type(error).__name__})"
    else:
        return
    raise ImageError(f"{name}: {' '.join(reason.split())}")


def _check_extent(image: PIL.Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:   # before any pixel is decoded
        raise ValueError(f"more than {MAX_PIXELS:,} pixels ({width} x {height})")
    if width * height == 0:
        raise ValueError(f"no pixels ({width} x {height})")


def _decoded(image: PIL.Image.Image, upright: bool) -> np.ndarray:
    _check_extent(image)
    image.load()
    orientation = orientation_of(image) if upright else 1
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(np.asarray(image))
    return np.array(image.convert("RGB"))


def orientation_of(image: PIL.Image.Image) -> int:
    """What EXIF says of the way round: 1 is upright, a key of UPRIGHT is not."""
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:   # broken EXIF does not spoil the pixels
        return 1


def _from_deep_grey(grey: np.ndarray) -> np.ndarray:
    """Grey of more than 8 bits as RGB: integers in 0..65535, floats in 0..1, which Pillow would clip."""
    whole = np.issubdtype(grey.dtype, np.integer)
    top = 65535 if whole else 1.0
    if not (grey.min() >= 0 and grey.max() <= top):   # so written, NaN is refused too
        raise ValueError(f"grey values of {grey.dtype} must be in 0..{top:g}, "
                         f"got {grey.min():g}..{grey.max():g}")
    scaled = np.rint(grey.astype(np.float32) * (255 / top)).astype(np.uint8)
    return np.repeat(scaled[..., None], 3, axis=2)


def _from_array(array: np.ndarray) -> np.ndarray:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not is_image or array.size == 0:
        raise ImageError(f"image: expected a uint8 array (height, width, 3) of RGB or (height, width) of "
                         f"grey, got {array.dtype} {array.shape}")
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    return np.array(array, order="C")


def _from_tensor(tensor: "torch.Tensor") -> np.ndarray:
    whole = str(tensor.dtype) == "torch.uint8"
    is_image = tensor.ndim == 3 and tensor.shape[0] == 3 and tensor.numel() > 0
    if not is_image or not (whole or tensor.is_floating_point()):
        raise ImageError(f"image: expected a tensor (3, height, width) of uint8 or of floats in 0..1, "
                         f"got {tensor.dtype} {tuple(tensor.shape)}")
    tensor = tensor.detach().cpu().permute(1, 2, 0)
    if whole:
        return np.array(tensor.numpy(), order="C")
    array = tensor.float().numpy()
    # Resizing leaves rounding errors beyond both ends; anything further is another scale, most often 0..255.
    if not (array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
        raise ImageError(f"image: expected floats in 0..1, got {array.min():g}..{array.max():g}")
    return np.rint(array.clip(0, 1) * 255).astype(np.uint8, order="C")


def find_images(source: str | Path) -> list[Path]:
    """The images that a file, a folder or a glob stands for, in order of their names.

    Of a folder those directly in it, by their suffix and without hidden files; a glob may hold `**` for
    folders within folders. Raises ImageError for a folder without images or a glob that matches none.
    """
    path = Path(source)
    if path.is_dir():
        found = [entry for entry in path.iterdir() if _looks_like_image(entry)]
    elif path.exists() or not glob.has_magic(str(source)):
        return [path]   # of any suffix, and even where there is none: reading it gives the better message
    else:
        matches = glob.glob(str(source), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        found = [match for match in map(Path, matches) if _looks_like_image(match)]
    if not found:
        raise ImageError(f"{source}: no images there; their names end in {', '.join(sorted(SUFFIXES))}")
    return sorted(found)


def _looks_like_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
