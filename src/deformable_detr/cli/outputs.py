"""Where drawings go: never over a source, another drawing of this call, or a file that ddetr has not written."""

import io
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from deformable_detr.cli.app import WrongCallError
from deformable_detr.cli.inputs import identity
from deformable_detr.marks import may_write, numbered, write_marked
from deformable_detr.report.history import REPORT_FILE

if TYPE_CHECKING:
    import PIL.Image

PAGE_SUFFIXES = (".html", ".htm")
JPEG_MAX_SIDE = 65_535


class Drawings:
    """Drawings written into a folder, each under the name of its source, numbered if that is taken."""

    def __init__(self, folder: Path, sources: Iterable[Path]) -> None:
        self.folder = folder
        self._sources = {identity(path) for path in sources}
        self._claimed: set[str] = set()

    def write(self, image: "PIL.Image.Image", source: Path) -> Path:
        """Write the drawing of `source`, and return its path: JPEG, but PNG for a PNG and for what is too large for
        JPEG. Raises OSError.
        """
        is_png = source.suffix.lower() == ".png" or max(image.size) > JPEG_MAX_SIDE
        path = self.claim(source, ".png" if is_png else ".jpg")
        write_image(image, path)
        return path

    def claim(self, source: Path, suffix: str) -> Path:
        """The path for the drawing of `source`, which no other gets. Raises OSError."""
        for number in count(1):
            path = numbered(self.folder / f"{source.stem}{suffix}", number)
            # Some file systems take A.jpg and a.jpg for the same name.
            is_free = path.name.casefold() not in self._claimed and identity(path) not in self._sources
            if is_free and may_write(path):
                self._claimed.add(path.name.casefold())
                return path
        raise AssertionError("numbers do not end")


def write_image(image: "PIL.Image.Image", path: Path) -> None:
    """Write it in the format of the path's suffix, marked as ours, whole or not at all. Raises OSError."""
    encoded = io.BytesIO()
    image.save(encoded, "PNG" if path.suffix == ".png" else "JPEG", quality=95)
    write_marked(path, encoded.getvalue())


def check_page(flag: str, page: Path) -> None:
    """Refuse what cannot be a page, and a file that ddetr has not written."""
    if page.suffix.lower() not in PAGE_SUFFIXES or page.is_dir():
        raise WrongCallError(f"{flag}: expected a file whose name ends in .html, got {page}")
    if not may_write(page):
        raise WrongCallError(f"{flag}: expected a new file, or a page that ddetr has written, got {page}")


def report_file(path: Path) -> Path:
    """The file for --report: the path itself where it ends in .html, else a file in that folder, which is made."""
    if path.suffix.lower() not in PAGE_SUFFIXES:
        if path.is_file():
            raise WrongCallError("--report: expected a folder, or a file whose name ends in .html, got the file "
                                 f"{path}")
        path = path / REPORT_FILE
    check_page("--report", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def check_folder(flag: str, folder: Path) -> None:
    """Refuse a file where a folder is needed."""
    if folder.exists() and not folder.is_dir():
        raise WrongCallError(f"{flag}: expected a folder, got the file {folder}")
