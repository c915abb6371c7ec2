"""Names for files and folders, made from names that may be anything."""

import re
from itertools import count

from deformable_detr.text import CONTROL_CHARACTER

REFUSED = re.compile(r'[<>:"/\\|?*]')           # by some file system
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)     # by Windows
LONGEST = 200       # bytes of a stem; file systems allow 255 for the whole name


class Names:
    """Gives every name once. Some file systems take A and a for the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def claim(self, wanted: str) -> str:
        """A name like `wanted` that any file system takes, with a number if it has been given before."""
        stem = safe_name(wanted)
        for number in count(1):
            name = stem if number == 1 else f"{stem}-{number}"
            if name.casefold() not in self._taken:
                self._taken.add(name.casefold())
                return name
        raise AssertionError("numbers do not end")


def safe_name(wanted: str) -> str:
    """One name, which leads into no other folder."""
    valid = wanted.encode(errors="replace").decode()
    clean = REFUSED.sub("_", CONTROL_CHARACTER.sub("_", valid)).encode()[:LONGEST].decode(errors="ignore").strip(" .")
    return f"_{clean}" if RESERVED.fullmatch(clean) else clean or "_"
