"""YOLO labels: beside each image a text file with a line an object, in fractions of the image."""

from collections.abc import Callable, Mapping, Sequence
from math import nan
from pathlib import Path, PurePosixPath

from deformable_detr.datasets.annotations import Annotations, ImageFolder
from deformable_detr.datasets.documents import DocumentError, read_lines
from deformable_detr.datasets.findings import EntryError, Findings, Place
from deformable_detr.datasets.formats.rows import Rows
from deformable_detr.datasets.formats.source import is_number
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.layout import Fence
from deformable_detr.images import ImageError, open_image, upright_size
from deformable_detr.progress import show_progress
from deformable_detr.text import quoted

LARGEST_FRACTION = 2.0    # a box may reach outside its image; beyond this the numbers are pixels


def read_yolo(folder: Path, file: Path, names: Mapping[int, str], images: Sequence[str],
              label_of: Callable[[str], str], findings: Findings) -> Annotations:
    """The images, by their names under `folder`, and the objects in their label files, without those at fault.

    `file` is where the names of the classes come from; `label_of` tells the label file of an image.
    """
    class_of = {number: index for index, number in enumerate(sorted(names))}
    fence = Fence(folder, *{(folder / label_of(name)).parent for name in images})
    rows, unlabelled = Rows(), []
    for name in show_progress(images, len(images), "reading labels"):
        try:
            with open_image(folder / name) as opened:
                height, width = upright_size(opened)
        except ImageError as error:
            findings.add(Kind.PICTURE_UNREADABLE, Place(folder / name), error.reason_for(folder / name))
            continue
        label = folder / label_of(name)
        rows.start(ImageRecord(rows.num_images + 1, name, width, height), label)
        try:
            if fence.holds(label):
                _read_labels(label, class_of, (width, height), rows, findings)
            else:
                unlabelled.append(name)
        except EntryError as fault:
            findings.add(fault.kind, Place(label), fault.message)
    findings.add_all(Kind.LABEL_MISSING, len(unlabelled), (
        (Place(folder / name), f"expected {folder / label_of(name)}, got nothing") for name in unlabelled))
    ids = tuple(sorted(names))
    return rows.annotations(file, tuple(names[number] for number in ids), ids, ImageFolder(folder))


def label_file(image: str) -> str:
    """The label file of an image: the last `images` of its path becomes `labels`; without one, beside it."""
    path = PurePosixPath(label_beside(image))
    parts = list(path.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return PurePosixPath(*parts).as_posix()


def label_beside(image: str) -> str:
    """The label file of an image that has it beside itself, whatever its folders are called."""
    return PurePosixPath(image).with_suffix(".txt").as_posix()


def _read_labels(file: Path, class_of: Mapping[int, int], size: tuple[int, int], rows: Rows,
                 findings: Findings) -> None:
    """Take the objects of a file; `size` is the image's (width, height)."""
    try:
        lines = read_lines(file)
    except DocumentError as error:
        findings.add(Kind.ANNOTATION_FILE, Place(file), str(error))
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            label, box = _read_line(line.split(), class_of)
        except EntryError as fault:
            findings.add(fault.kind, Place(file, number), fault.message)
            continue
        if max(map(abs, box)) > LARGEST_FRACTION:
            findings.add(Kind.BOX_PIXELS, Place(file, number),
                         f"expected centre x, centre y, width, height from 0 to 1, got {quoted(line.strip())}")
        else:
            box = [value * extent for value, extent in zip(box, size * 2, strict=True)]
        x, y, width, height = box
        rows.add(label, (x - width / 2, y - height / 2, width, height), number)


def _read_line(words: Sequence[str], class_of: Mapping[int, int]) -> tuple[int, list[float]]:
    """Class index and box, as centre and size; of an outline the box around it."""
    if len(words) != 5 and not (len(words) >= 7 and len(words) % 2):
        raise EntryError(Kind.ENTRY, f"expected a class and four numbers (centre x, centre y, width, height), or a "
                                     f"class and the points of an outline, got {len(words)} words")
    try:
        number, *values = (float(word) for word in words)
    except ValueError:
        number, values = nan, [nan]
    if not all(map(is_number, values)):
        raise EntryError(Kind.ENTRY, f"expected numbers, got {quoted(' '.join(words))}")
    if number not in class_of:
        raise EntryError(Kind.CLASS_UNKNOWN, f"class: expected one of {quoted(list(class_of))}, got {quoted(words[0])}")
    if len(values) > 4:
        (left, right), (top, bottom) = ((min(edges), max(edges)) for edges in (values[::2], values[1::2]))
        values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return class_of[int(number)], values

