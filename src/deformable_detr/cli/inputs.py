"""What a command's arguments name: image files, videos, addresses, standard input."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deformable_detr.addresses import is_address
from deformable_detr.detect.video.streams import is_stream, without_password
from deformable_detr.marks import is_marked

logger = logging.getLogger(__name__)

STANDARD_INPUT = "/dev/stdin"       # on all systems
PREFIX = 16     # bytes of a file that tell what it is

Kind = Literal["image", "video", "address", "stream", "standard input"]


@dataclass(frozen=True)
class Input:
    """An image file or another source, or an argument that names none."""

    name: str                   # as it is printed
    path: Path | None           # of a file on this machine
    problem: str | None = None  # one line, which begins with the name
    kind: Kind = "image"
    source: str = ""            # the address, as it was typed
    num_frames: int | None = 1  # None where it is not known


def find_inputs(sources: Sequence[str], every: int = 1) -> list[Input]:
    """Each source once, whatever links lead to it, in the order given; of videos `every`-th frame is counted.

    Of a folder or a glob the drawings that ddetr has written are left out. What is left out is logged.
    """
    inputs: list[Input] = []
    seen: set[object] = set()
    for source in sources:
        remote = _remote_input(source)
        if remote is not None:
            if source not in seen:
                inputs.append(remote)
            seen.add(source)
            continue
        for entry in _found_inputs(source, every):
            if entry.path is None or identity(entry.path) not in seen:
                inputs.append(entry)
            if entry.path is not None:
                seen.add(identity(entry.path))
    return inputs


def _remote_input(source: str) -> Input | None:
    """What is no file on this machine; None for the others."""
    if source == STANDARD_INPUT:
        return Input("-", None, kind="standard input", num_frames=None)
    if is_address(source):
        return Input(source, None, kind="address", source=source, num_frames=None)
    if is_stream(source):
        return Input(without_password(source), None, kind="stream", source=source, num_frames=None)
    return None


def _found_inputs(source: str, every: int) -> Iterator[Input]:
    """The images and videos of a file, a folder or a glob."""
    from deformable_detr.detect.video.streams import SUFFIXES as VIDEO_SUFFIXES
    from deformable_detr.images import SUFFIXES, ImageError, find_images

    try:
        found = find_images(source, SUFFIXES | VIDEO_SUFFIXES)
    except ImageError as error:
        yield Input(source, None, str(error))
        return
    if found.left_out:
        logger.warning("%s: left out %s", source, found.left_out_summary())
    is_named = found.paths == (Path(source),)
    drawings = set() if is_named else set(filter(_is_drawing, found))
    if len(drawings) == len(found):
        yield Input(source, None, f"{source}: no images there but ddetr's own drawings")
    elif drawings:
        logger.warning("%s: left out %d x ddetr's own drawing", source, len(drawings))
    for path in found:
        if path in drawings:
            continue
        if path.suffix.lower() in VIDEO_SUFFIXES or (is_named and _may_be_video(path)):
            yield _video_input(path, every)
        else:
            yield Input(str(path), path)


def _may_be_video(path: Path) -> bool:
    """Whether a file that was named is no image by its name or its start, and a video can be opened there."""
    from deformable_detr.detect.video import Video, VideoError
    from deformable_detr.images import SUFFIXES, begins_as_image

    if path.suffix.lower() in SUFFIXES:
        return False
    try:
        with path.open("rb") as file:
            if begins_as_image(file.read(PREFIX)):
                return False
        with Video(path):
            return True
    except (VideoError, OSError):
        return False


def _video_input(path: Path, every: int) -> Input:
    """A video is opened here, so that what is wrong with it is known before the weights are loaded."""
    from deformable_detr.detect.video import Video, VideoError

    try:
        with Video(path, every=every) as video:
            return Input(str(path), path, kind="video", num_frames=video.num_frames)
    except VideoError as error:
        return Input(str(path), None, str(error))


def identity(path: Path) -> tuple[int, int] | str:
    """The same for two names of one file; if there is no file, the name itself."""
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return status.st_dev, status.st_ino


def _is_drawing(path: Path) -> bool:
    try:
        return is_marked(path)
    except OSError:     # which reading it will report
        return False


def readable(inputs: Sequence[Input]) -> Iterator[Path]:
    """The files among the inputs that have had no problem so far."""
    return (entry.path for entry in inputs if entry.path is not None)
