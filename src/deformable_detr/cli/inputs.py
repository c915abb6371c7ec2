"""The image files that a command's arguments name."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deformable_detr.marks import is_marked

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Input:
    """An image file, or an argument that names none."""

    name: str                   # as it is printed
    path: Path | None           # None if there is a problem
    problem: str | None = None  # one line, which begins with the name


def find_inputs(sources: Sequence[str]) -> list[Input]:
    """Each image once, whatever links lead to it, in the order given.

    Of a folder or a glob the drawings that ddetr has written are left out. What is left out is logged.
    """
    from deformable_detr.images import ImageError, find_images

    inputs: list[Input] = []
    seen: set[object] = set()
    for source in sources:
        try:
            found = find_images(source)
        except ImageError as error:
            inputs.append(Input(source, None, str(error)))
            continue
        if found.left_out:
            logger.warning("%s: left out %s", source, found.left_out_summary())
        drawings = set() if found.paths == (Path(source),) else set(filter(_is_drawing, found))
        if len(drawings) == len(found):
            inputs.append(Input(source, None, f"{source}: no images there but ddetr's own drawings"))
        elif drawings:
            logger.warning("%s: left out %d x ddetr's own drawing", source, len(drawings))
        for path in found:
            if path not in drawings and identity(path) not in seen:
                seen.add(identity(path))
                inputs.append(Input(str(path), path))
    return inputs


def identity(path: Path) -> tuple[int, int] | str:
    """The same for two names of one file; if there is no file, the name itself."""
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return status.st_dev, status.st_ino


def further_frames(path: Path) -> int:
    """Pages or frames of a file after the first, which is the one that is used."""
    from deformable_detr.images import num_frames, open_image

    with open_image(path) as image:
        return num_frames(image) - 1


def _is_drawing(path: Path) -> bool:
    try:
        return is_marked(path)
    except OSError:     # which reading it will report
        return False


def readable(inputs: Sequence[Input]) -> Iterator[Path]:
    """The inputs that have had no problem so far."""
    return (entry.path for entry in inputs if entry.path is not None)
