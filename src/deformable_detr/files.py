"""Files are written whole or not at all."""

import errno
import io
import itertools
import os
import platform
import re
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

# The name of an unfinished file says who writes it: the host, the process's number, and which process of that number.
HOST = f"{zlib.crc32(platform.node().encode()):08x}"
PROCESS = uuid4().hex[:8]
NUMBERS = itertools.count()
UNFINISHED = re.compile(r"\..*\.([0-9a-f]{8})-(\d{1,9})-([0-9a-f]{8})-\d+\.unfinished", re.DOTALL)
LONGEST_NAME = 180          # bytes of the file's name in that of its unfinished one; file systems allow 255
SECONDS_ABANDONED = 86_400  # no write takes a day


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see `writing_whole`."""
    with writing_whole(path) as file:
        file.write(content)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together, each whole, and none is replaced before all are on the disk.

    Otherwise as `writing_whole`.
    """
    path = None
    try:
        with ExitStack() as unfinished:
            for path, content in contents.items():
                _make_room(path)
                file = unfinished.enter_context(_unfinished(path))
                file.write(content)
                file.flush()    # a full disk says so before the first is replaced
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def writing_whole(path: Path) -> Iterator[io.BufferedIOBase]:
    """A new file next to `path`, renamed to it at the end: no reader meets half of it, and no crash leaves half.

    Only a regular file is replaced: never a folder, a pipe, a device, or a link, wherever it leads. On a full disk
    the old file stays, and nothing else is left. Unfinished files of killed processes in the folder are removed.
    Raises OSError, which names `path`, if it cannot be written.
    """
    try:
        _make_room(path)
        with _unfinished(path) as file:
            yield file
    except OSError as error:   # a full disk's names no file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _make_room(path: Path) -> None:
    """The folder for a file, without what others have left unfinished there."""
    replaces = check_regular(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if replaces:
        _remove_abandoned(path.parent)
    else:
        _remove_abandoned_once(path.parent)


def check_regular(path: Path) -> bool:
    """Whether there is a file, which is regular. Raises FileExistsError for anything else there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise FileExistsError(errno.EEXIST, f"expected a regular file or none, got {what}")
    return True


@contextmanager
def _unfinished(path: Path) -> Iterator[io.BufferedIOBase]:
    name = os.fsencode(path.name)[:LONGEST_NAME].decode(errors="ignore")
    unfinished = path.with_name(f".{name}.{HOST}-{os.getpid()}-{PROCESS}-{next(NUMBERS)}.unfinished")
    try:
        with unfinished.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@lru_cache(maxsize=256)
def _remove_abandoned_once(folder: Path) -> None:
    """As below, but not for each of the thousands of files that a process may add to a folder."""
    _remove_abandoned(folder)


def _remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files of processes that no longer run."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            writer = UNFINISHED.fullmatch(entry.name)
            if writer and entry.is_file(follow_symlinks=False):
                age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if age > SECONDS_ABANDONED or _has_ended(*writer.groups()):
                    Path(entry.path).unlink(missing_ok=True)


def _has_ended(host: str, number: str, process: str) -> bool:
    """Whether the writing process has certainly ended; one on another host may still run."""
    if host != HOST or os.name == "nt":   # where signal 0 would interrupt it
        return False
    if int(number) == os.getpid():   # in containers each start may get the same number
        return process != PROCESS
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:   # another user's
        return False
    return False
