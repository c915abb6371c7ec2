"""Images beside their labels: copies, so that editing them leaves the source alone."""

import io
import shutil
from pathlib import Path

import numpy as np
import PIL.Image

from deformable_detr.detect.results.saved import Saved
from deformable_detr.files import write_whole

JPEG_MAX_SIDE = 65_535


def copy_image(saved: Saved, folder: Path) -> None:
    """The file itself, or if the image is none on this machine, its pixels."""
    if saved.path is not None:
        shutil.copyfile(saved.path, folder / saved.name)
    else:
        assert saved.image is not None
        write_pixels(saved.image, folder / saved.name)


def write_pixels(image: np.ndarray, path: Path) -> None:
    """As JPEG or PNG, whichever the name says."""
    content = io.BytesIO()
    PIL.Image.fromarray(image).save(content, "PNG" if path.suffix == ".png" else "JPEG", quality=95)
    write_whole(path, content.getvalue())


def suffix_for(image_size: tuple[int, int]) -> str:
    """JPEG, but PNG for what is too large for it."""
    return ".png" if max(image_size) > JPEG_MAX_SIDE else ".jpg"
