"""A mark in the images, MP4 files and pages that this package writes: what does not carry it is never overwritten.

The mark holds a checksum of the rest of the file, so a drawing that somebody has edited since is theirs.
"""

import errno
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deformable_detr.files import write_whole, writing_whole

WORDS = b"written by deformable-detr"
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = len(PNG_START) + 25        # the first chunk, IHDR; the mark is the second
JPEG_START = b"\xff\xd8"
APP0 = b"\xff\xe0"
HTML_START = b"<!DOCTYPE html>"
MP4_KIND = b"ftyp"      # from the fifth byte on
MP4_MARK = 8 + len(WORDS) + 9       # bytes: a box that players pass over, at the end of the file
PIECE = 2**20           # bytes of a video that are read at a time


def marked(content: bytes) -> bytes:
    """A PNG or JPEG file, or a page, with the mark: a text chunk or a comment. ValueError for anything else."""
    if not content.startswith((PNG_START, JPEG_START, HTML_START)):
        raise ValueError(f"expected PNG, JPEG or HTML, got {content[:15]!r}")
    place = _place_of_mark(content)
    return content[:place] + _mark(content) + content[place:]


def is_marked(path: Path) -> bool:
    """Whether it is a regular file, or a link to one, that has been written here. Raises OSError."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(PNG_HEADER + 64)
        if start[4:8] == MP4_KIND:
            return _is_marked_video(file)
        if WORDS not in start:
            return False
        content = start + file.read()
    place = _place_of_mark(content)
    length = len(_mark(content))
    rest = content[:place] + content[place + length:]
    return content[place:place + length] == _mark(rest)


def may_write(path: Path) -> bool:
    """Whether `write_marked` would write it: nothing is there, or what it wrote itself. Raises OSError."""
    return not path.is_symlink() and (is_marked(path) or not path.exists())


def write_marked(path: Path, content: bytes) -> None:
    """Write a PNG or JPEG file with the mark, whole or not at all.

    Raises OSError, which names `path`: FileExistsError for anything there that it has not written itself.
    """
    _refuse_others(path)
    write_whole(path, marked(content))


@contextmanager
def writing_marked_video(path: Path) -> Iterator[io.BufferedIOBase]:
    """A file for an MP4, which gets the mark at the end of the block; whole or not at all. Raises as `write_marked`."""
    _refuse_others(path)
    with writing_whole(path) as file:
        yield file
        size = file.seek(0, os.SEEK_END)
        mark = _video_mark(file, size)
        file.seek(size)
        file.write(mark)


def _refuse_others(path: Path) -> None:
    if not may_write(path):
        raise FileExistsError(errno.EEXIST, "there is something that ddetr has not written, or that was changed since",
                              str(path))


def free_path(path: Path) -> Path:
    """`path`, or if something else is there, the first of its numbered names that may be written. Raises OSError."""
    number = 1
    candidate = path
    while not may_write(candidate):
        number += 1
        candidate = numbered(path, number)
    return candidate


def numbered(path: Path, number: int) -> Path:
    """`path` for 1, then check-2.png, check-3.png, ..."""
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _place_of_mark(content: bytes) -> int:
    """Where the mark begins, or would."""
    if content.startswith(PNG_START):
        return PNG_HEADER
    if content.startswith(HTML_START):
        return len(HTML_START)
    if content[2:4] == APP0:     # which JFIF wants to be the first
        return 4 + int.from_bytes(content[4:6], "big")
    return len(JPEG_START)


def _mark(content: bytes) -> bytes:
    """The mark of a file that has none yet."""
    text = WORDS + b" %08x" % zlib.crc32(content)
    if content.startswith(PNG_START):
        chunk = b"tEXtComment\0" + text
        return (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    if content.startswith(HTML_START):
        return b"<!-- " + text + b" -->"
    return b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text


def _is_marked_video(file: io.BufferedIOBase) -> bool:
    size = file.seek(0, os.SEEK_END) - MP4_MARK
    if size < 0:
        return False
    file.seek(size)
    mark = file.read()
    return WORDS in mark and mark == _video_mark(file, size)


def _video_mark(file: io.BufferedIOBase, size: int) -> bytes:
    """The mark for the first `size` bytes of the file."""
    checksum = 0
    file.seek(0)
    while size > 0 and (piece := file.read(min(size, PIECE))):
        checksum = zlib.crc32(piece, checksum)
        size -= len(piece)
    return MP4_MARK.to_bytes(4, "big") + b"free" + WORDS + b" %08x" % checksum
