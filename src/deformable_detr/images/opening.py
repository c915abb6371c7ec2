"""Image files, opened but not decoded."""

import io
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeGuard, runtime_checkable

import PIL.Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from deformable_detr.images.errors import name_of, one_error
from deformable_detr.images.orientation import EXIF_ORIENTATION

MAX_PIXELS = 120_000_000   # the 108 megapixels of a phone fit; decoded they take a third of a gigabyte
MAX_FRAMES = 1000          # frames are counted up to here: one in a TIFF can be a few bytes

# All decoded inside this process: no EPS, which would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".bmp", ".gif",
                      ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2"})

REDUCED_OR_MASK = 1 | 4    # flags of NewSubfileType in a TIFF: the page repeats another one
NEW_SUBFILE_TYPE = 254


@runtime_checkable
class BinaryFile(Protocol):
    """A file object opened in binary mode."""

    def read(self, size: int = -1, /) -> bytes: ...


FileSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile


class _Jpeg(JpegImageFile):
    """Without the resolution: Pillow looks for it in EXIF, and warns about damaged EXIF.

    Of several JPEGs in one file (MPO, with a phone's depth map or a camera's preview) only the first is seen.
    """

    def _read_dpi_from_exif(self) -> None:
        pass


class _Tiff(TiffImageFile):
    """As stored: Pillow's own class turns the pixels as it decodes them, and gives the turned size before."""

    stored_orientation = 0   # not given

    def _setup(self) -> None:
        self.stored_orientation = self.tag_v2.pop(EXIF_ORIENTATION, 0)
        super()._setup()

    def load_prepare(self) -> None:
        super(TiffImageFile, self).load_prepare()   # Pillow's own warns about many pixels

    def load_end(self) -> None:
        pass   # Pillow's own turns the pixels


# Used instead of Pillow's own classes.
OPENERS = {"JPEG": _Jpeg, "TIFF": _Tiff}


def is_file(source: object) -> TypeGuard[FileSource]:
    """Whether it is a path, the bytes of a file or a file object: what `open_image` takes."""
    return isinstance(source, str | os.PathLike | bytes | bytearray | memoryview | BinaryFile)


def begins_as_image(start: bytes) -> bool:
    """Whether a file that starts with these bytes, at least 16, may be an image in one of FORMATS."""
    PIL.Image.init()
    accepts = (PIL.Image.OPEN[name][1] for name in FORMATS if name in PIL.Image.OPEN)
    return any(accept is not None and accept(start) is True for accept in accepts)


@contextmanager
def open_image(source: FileSource) -> Iterator[ImageFile]:
    """A file, or the content of one, before its pixels are decoded: `size`, `mode` and metadata are as stored.

    Raises ImageError if it cannot be opened, and for any exception within the block.
    """
    with one_error(name_of(source)), _binary(source) as file:
        image = _identified(file)
        check_extent(image)
        yield image


def num_frames(image: PIL.Image.Image) -> int:
    """The number of pages or frames in an opened file, counted up to MAX_FRAMES; `read_image` returns the first.

    Reduced copies and masks in a TIFF, previews in a JPEG, and frames after a damaged one are not counted.
    """
    try:
        if isinstance(image, TiffImageFile):
            return _num_pages(image)
        return max(1, min(getattr(image, "n_frames", 1), MAX_FRAMES))
    except Exception:   # a damaged frame does not spoil the first
        return 1


def is_deep(image: PIL.Image.Image) -> bool:
    """Whether an opened, undecoded image has more than 8 bits a channel."""
    return image.mode.startswith(("I", "F")) or any(";16" in str(tile) for tile in getattr(image, "tile", ()))


def check_extent(image: PIL.Image.Image) -> None:
    """Raises ValueError for no pixels, and for more than MAX_PIXELS: before they are decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels ({width} x {height})")
    if width * height == 0:
        raise ValueError(f"no pixels ({width} x {height})")


@contextmanager
def _binary(source: FileSource) -> Iterator[io.BufferedIOBase]:
    """The file, opened. Raises OSError or ValueError; pipes and devices, which may never end, are not opened."""
    if isinstance(source, str | os.PathLike):
        size, file = _check_regular(source), open(source, "rb")  # noqa: PTH123, SIM115 - closed below
    else:
        content = bytes(source) if isinstance(source, bytes | bytearray | memoryview) else _content_of(source)
        size, file = len(content), io.BytesIO(content)
    with file:
        if size == 0:
            raise ValueError("the file is empty")
        yield file


def _check_regular(path: str | os.PathLike[str]) -> int:
    """The size of a file in bytes. Raises ValueError for anything else than a regular file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - Path would make https:/ of https://
    except FileNotFoundError:
        raise ValueError("no such file") from None
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("expected an image, got a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    return status.st_size


def _content_of(file: BinaryFile) -> bytes:
    """All of a file object, from its start if it can seek."""
    if isinstance(file, io.IOBase) and file.seekable():
        file.seek(0)
    content = file.read()
    if not isinstance(content, bytes):
        raise ValueError("expected a file opened in binary mode")
    return content


def _identified(file: io.BufferedIOBase) -> ImageFile:
    """The file in the first of FORMATS that accepts it.

    Replaces `PIL.Image.open`, which warns about many pixels. Pillow does not get the file's name: it would map the
    file into memory, and a file cut short meanwhile would kill the process.
    """
    PIL.Image.init()
    prefix = file.read(16)
    for name in FORMATS:
        if name not in PIL.Image.OPEN:   # some builds of Pillow lack some
            continue
        factory, accept = PIL.Image.OPEN[name]
        if accept and accept(prefix) is not True:   # a string says that this build lacks the decoder
            continue
        file.seek(0)
        try:
            return OPENERS.get(name, factory)(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):   # how Pillow's formats decline a file
            continue
    raise PIL.UnidentifiedImageError


def _num_pages(image: TiffImageFile) -> int:
    """The number of pages of a TIFF that do not repeat another."""
    pages, current = 0, image.tell()
    try:
        for page in range(MAX_FRAMES):
            image.seek(page)
            pages += not int(image.tag_v2.get(NEW_SUBFILE_TYPE, 0)) & REDUCED_OR_MASK
    except Exception:   # EOFError after the last page; others for a damaged one
        pages = max(1, pages)
    image.seek(current)
    return pages
