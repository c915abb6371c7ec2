"""What writers of results are given: the classes once, then each image with what was found in it."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from deformable_detr.detections import Detections
from deformable_detr.text import CONTROL_CHARACTER

NOT_IN_XML = re.compile(f"{CONTROL_CHARACTER.pattern}|[\ufffe\uffff]")


def valid_text(text: str) -> str:
    """The text with a ? for whatever JSON and XML in UTF-8 cannot hold, or a terminal would obey."""
    return NOT_IN_XML.sub("?", text.encode(errors="replace").decode())


@dataclass(frozen=True)
class Classes:
    """The classes by their index, with names that differ and that every format can hold."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...]

    @classmethod
    def of(cls, names: Sequence[str], category_ids: Sequence[int]) -> "Classes":
        """A name that is taken, as "N/A" in COCO, has its category id added."""
        distinct: dict[str, None] = {}
        for name, identity in zip(names, category_ids, strict=True):
            valid = valid_text(name)
            while valid in distinct:
                valid = f"{valid} {identity}"
            distinct[valid] = None
        return cls(tuple(distinct), tuple(category_ids))


@dataclass(frozen=True, eq=False)
class Saved:
    """An image with what was found in it."""

    file: str                       # as it is printed
    place: Mapping[str, Any]        # "frame" and "seconds" of a video
    number: int                     # 1, 2, ...
    name: str                       # of a file, with a stem that no other image of the call has
    listed: str                     # below the folder that holds all image files of the call
    folder: str                     # the name of that folder; empty where the image is no file on this machine
    path: Path | None               # of the image file, if it is one on this machine
    image: UInt8[np.ndarray, "h w 3"] | None
    detections: Detections


Add = Callable[[Saved], None]
Writer = Callable[[Path, Classes], AbstractContextManager[Add]]      # path is that of PLACES
