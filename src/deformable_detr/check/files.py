"""What image files show without being decoded: images that two splits share, and sizes in their headers."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from deformable_detr.check.images import wrong_size
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.kinds import Fault
from deformable_detr.images import ImageError, open_image, upright_size

NUM_MEASURED = 100      # images of a split, spread over it, whose headers are read
EXCERPT = 2**12         # bytes from the middle of a file; where they and its size are equal, all of it is compared
MOST_READ = 2**30       # bytes of a split's tables and archives, and of what is compared: a few seconds

Key = tuple[int, bytes]     # number of bytes, and the digest of an excerpt


def check_leaks(splits: Mapping[str, Annotations], findings: Findings) -> None:
    """Report images with the bytes of an image of an earlier split, in bounded time."""
    if len(splits) < 2:
        return
    sizes = Counter(size for annotations in splits.values() for size in set(_file_sizes(annotations)))
    shared = {size for size, count in sizes.items() if count > 1}
    first: dict[Key, tuple[str, int]] = {}
    left = MOST_READ
    for split, annotations in splits.items():
        for index, key in _keys(annotations, shared):
            other, original = first.setdefault(key, (split, index))
            if other == split or left <= 0:
                continue
            places = [splits[name].store.place(splits[name].images[number])
                      for name, number in ((split, index), (other, original))]
            if places[0] != places[1]:
                left -= 2 * key[0]
            if places[0] == places[1] or _content(annotations, index) == _content(splits[other], original):
                findings.add(Fault.PICTURE_LEAK, annotations.place_of_image(index),
                             f"{annotations.images[index].file_name} of {split} has the bytes of "
                             f"{splits[other].images[original].file_name} of {other}")


def check_sizes(splits: Mapping[str, Annotations], findings: Findings) -> None:
    """Report images whose headers give another size than the annotations; those that cannot be opened are left out."""
    for annotations in splits.values():
        images = annotations.images
        chosen = np.linspace(0, len(images) - 1, min(NUM_MEASURED, len(images))).astype(int)
        for index in chosen.tolist():
            try:
                with open_image(annotations.store.source(images[index])) as opened:
                    stored, upright = (opened.height, opened.width), upright_size(opened)
            except ImageError:
                continue
            if images[index].size not in (stored, upright):
                findings.add(Fault.PICTURE_SIZE, annotations.place_of_image(index), wrong_size(images[index], upright))


def _file_sizes(annotations: Annotations) -> Iterator[int]:
    """The number of bytes of each image that is a file of its own."""
    for source in annotations.store.sources(annotations.images):
        if not isinstance(source, Path):
            return
        yield source.stat().st_size


def _keys(annotations: Annotations, shared: Collection[int]) -> Iterator[tuple[int, Key]]:
    """Of each image that is a file of a size that splits share, or has no file of its own."""
    left = MOST_READ
    for index, source in enumerate(annotations.store.sources(annotations.images)):
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        if not size or (isinstance(source, Path) and size not in shared):
            continue
        middle = max(0, size - EXCERPT) // 2
        if isinstance(source, Path):
            with source.open("rb") as file:
                file.seek(middle)
                excerpt = file.read(EXCERPT)
        else:
            left -= size
            if left < 0:
                return
            excerpt = source[middle:middle + EXCERPT]
        yield index, (size, hashlib.sha256(excerpt).digest())


def _content(annotations: Annotations, index: int) -> bytes:
    source = annotations.store.source(annotations.images[index])
    return source.read_bytes() if isinstance(source, Path) else source
