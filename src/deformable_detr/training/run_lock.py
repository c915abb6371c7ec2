"""One run at a time in a folder: a lock that the system opens when its process ends, however it ends."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

FILE_NAME = ".lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[bool]:
    """Yield whether the folder, which is made where it is missing, is this process's for as long as it wants.

    Yields False while another process holds it. Where the file system knows no locks, a warning is logged instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    descriptor = _open_locked(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _remove(path, descriptor)


def _open_locked(path: Path) -> int | None:
    """A descriptor of the locked file; None if another process holds the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s): take care that no other run writes there",
                           path, error.strerror)
            return descriptor
        try:
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)   # the run that held it has just removed it: another process may hold a new file


def _remove(path: Path, descriptor: int) -> None:
    """Remove the file while it is locked, so that no other process can hold it by then; Windows needs it closed."""
    if sys.platform != "win32":
        path.unlink(missing_ok=True)
    os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # lockf's locks belong to the process: those of flock would be inherited by workers, which outlive a killed run.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
