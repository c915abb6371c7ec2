"""The lines of YOLO's label files: a box, the points of an outline or of an oriented box, or a box with key points.

A number after a box, which makes six words, is its score or its track, and is left out.
"""

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path

from deformable_detr.datasets.findings import EntryError, Place, stop
from deformable_detr.datasets.formats.source import is_number
from deformable_detr.datasets.kinds import Fault
from deformable_detr.text import quoted

Box = tuple[float, float, float, float]     # centre x, centre y, width, height
BOX_LENGTHS = (5, 6)                        # words
SAME = 5e-3                                 # fractions of the image by which equal coordinates may differ


class YoloLines:
    """Reads the lines of a split; `key_points` is data.yaml's `kpt_shape`: their number, and the numbers of each.

    Without it, a line of an odd number of words is an outline, unless all such lines could be boxes with key points
    too: that is refused at the end. `task` settles it.
    """

    def __init__(self, class_of: Mapping[int, int], key_points: tuple[int, int] | None, task: str) -> None:
        self._class_of, self._key_points = class_of, key_points
        self._lengths: set[int] = set()
        self._is_unsure = not key_points and task not in ("segment", "obb", "detect")

    def read(self, words: Sequence[str]) -> tuple[int, Box]:
        """Class index and box. Raises EntryError."""
        self._check_length(len(words))
        try:
            number, *values = (float(word) for word in words)
        except ValueError:
            number, values = nan, [nan]
        if not all(map(is_number, values)):
            raise EntryError(Fault.ENTRY, f"expected numbers, got {quoted(' '.join(words))}")
        if number not in self._class_of:
            raise EntryError(Fault.CLASS_UNKNOWN,
                             f"class: expected one of {quoted(list(self._class_of))}, got {quoted(words[0])}")
        self._lengths.add(len(words))
        self._is_unsure = self._is_unsure and (len(words) in BOX_LENGTHS or _may_have_key_points(values))
        label = self._class_of[int(number)]
        if self._key_points or len(words) in BOX_LENGTHS:
            return label, (values[0], values[1], values[2], values[3])
        (left, right), (top, bottom) = ((min(edges), max(edges)) for edges in (values[::2], values[1::2]))
        return label, ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)

    def check_sure(self, file: Path) -> None:
        """Raise DataError where the lines can be read in two ways."""
        if self._is_unsure and len(longer := self._lengths - set(BOX_LENGTHS)) == 1:
            stop(Fault.ANNOTATION_FILE, Place(file, entry="kpt_shape"),
                 f"every line has {min(longer)} words, which may be a box with key points or the points of an outline: "
                 "expected the shape of the key points, as in `kpt_shape: [17, 3]`, or `task: segment`")

    def _check_length(self, length: int) -> None:
        if length in BOX_LENGTHS:
            return
        if self._key_points:
            number, each = self._key_points
            if length != 5 + number * each:
                raise EntryError(Fault.ENTRY, f"expected a class, a box and {number} key points of {each} numbers "
                                 f"(kpt_shape), {5 + number * each} words, got {length}")
        elif length < 7 or length % 2 == 0:
            hint = (f"; key points? Then data.yaml needs `kpt_shape: [{(length - 5) // 3}, 3]`"
                    if length > 5 and (length - 5) % 3 == 0 else "")
            raise EntryError(Fault.ENTRY,
                             f"expected a class and four numbers (centre x, centre y, width, height), or a class and "
                             f"the points of an outline, got {length} words{hint}")


def _may_have_key_points(values: Sequence[float]) -> bool:
    """Whether these can be a box inside the image and points inside that box, and are no oriented box."""
    x, y, width, height, *rest = values
    if not all(side > 0 and side / 2 - SAME <= middle <= 1 - side / 2 + SAME
               for middle, side in ((x, width), (y, height))):
        return False
    if len(rest) == 4 and all(abs(first + third - second - fourth) < SAME
                              for first, second, third, fourth in (values[::2], values[1::2])):
        return False

    def inside(each: int) -> bool:
        points = [rest[start:start + each] for start in range(0, len(rest), each)]
        return len(rest) % each == 0 and all(
            ((abs(across - x) <= width / 2 + SAME and abs(down - y) <= height / 2 + SAME) or across == down == 0)
            and visible in ([], [0], [1], [2]) for across, down, *visible in points)

    return inside(2) or inside(3)


def read_key_points(file: Path, shape: object) -> tuple[int, int] | None:
    """data.yaml's `kpt_shape`, if there is one. Raises DataError."""
    if shape is None:
        return None
    if not (isinstance(shape, list) and len(shape) == 2 and str(shape[0]).isdecimal() and shape[1] in ("2", "3")):
        stop(Fault.ANNOTATION_FILE, Place(file, entry="kpt_shape"),
             f"expected the number of key points and 2 or 3, as in [17, 3], got {quoted(shape)}")
    return int(shape[0][:4]), int(shape[1])
