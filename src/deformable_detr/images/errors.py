"""The one error for an image that cannot be read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import PIL
import PIL.Image

from deformable_detr.text import printable


class ImageError(ValueError):
    """An image that cannot be read; one line, which names the file."""

    def reason_for(self, source: Any) -> str:
        """The line without the name of `source`, for callers that name the image themselves."""
        return str(self).removeprefix(f"{name_of(source)}: ")


def name_of(source: Any) -> str:
    """What messages call an image: the path as the caller wrote it, or "image" for one without a path."""
    path = os.fspath(source) if isinstance(source, os.PathLike) else source
    path = getattr(path, "name", path) if hasattr(path, "read") else path   # a file object's
    return printable(path) if isinstance(path, str) else "image"


@contextmanager
def one_error(name: str) -> Iterator[None]:
    """Turn any exception into an ImageError that begins with `name`."""
    try:
        yield
    except ImageError:
        raise
    except PIL.UnidentifiedImageError:
        reason = "not an image, or its format is not supported"
    except PIL.Image.DecompressionBombError:
        reason = "too many pixels"
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:   # Pillow raises almost anything for a damaged file, torch for odd tensors
        reason = str(error) or f"damaged ({type(error).__name__})"
    else:
        return
    raise ImageError(f"{name}: {printable(' '.join(reason.split()))}")
