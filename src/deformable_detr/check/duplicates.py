"""Images that come twice, or look as if they did: within a split, and worse, in two of them."""

from collections.abc import Iterator, Mapping

import numpy as np

from deformable_detr.check.images import GRID, Looks
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings, Place
from deformable_detr.datasets.kinds import Kind

# Of the 256 points of two fingerprints that may differ. Copies of photographs made smaller, compressed, or changed
# in brightness differ by up to 31 of them, different ones of the same set by 38 and more.
MAX_DIFFERENT = 32
AT_ONCE = 2**25         # comparisons of two images, which take some 200 MB


def check_duplicates(splits: Mapping[str, Annotations], looks: Looks, findings: Findings) -> None:
    """Report images with the bytes of an earlier one, and those that look like one."""
    copies = dict(find_copies(looks))
    for number, original in copies.items():
        crosses = _crosses(looks, number, original)
        if crosses or _place(splits, looks, number) != _place(splits, looks, original):    # not only listed twice
            kind = Kind.PICTURE_LEAK if crosses else Kind.PICTURE_DUPLICATE
            _report(kind, "has the bytes of", splits, looks, number, original, findings)
    for number, original in find_alike(looks, set(copies)):
        kind = Kind.PICTURE_SIMILAR_LEAK if _crosses(looks, number, original) else Kind.PICTURE_SIMILAR
        _report(kind, "looks like", splits, looks, number, original, findings)


def find_copies(looks: Looks) -> Iterator[tuple[int, int]]:
    """Images with the bytes of an earlier one, and the first of those, by their numbers over all splits."""
    first: dict[bytes, int] = {}
    for number, look in enumerate(looks.looks):
        if look and first.setdefault(look.digest, number) != number:
            yield number, first[look.digest]


def find_alike(looks: Looks, copies: set[int]) -> Iterator[tuple[int, int]]:
    """Images that look like an earlier one, and the likest of those, of another split if there is one."""
    numbers = [number for number, look in enumerate(looks.looks)
               if look and look.fingerprint is not None and number not in copies]
    if not numbers:
        return
    prints = np.stack([looks.looks[number].fingerprint for number in numbers])  # type: ignore[union-attr]
    signs = np.where(prints, np.float32(1), np.float32(-1))
    split_of = np.unique([looks.places[number][0] for number in numbers], return_inverse=True)[1]
    num_rows = max(1, AT_ONCE // len(numbers))
    for start in range(0, len(numbers), num_rows):
        end = min(start + num_rows, len(numbers))
        likeness = signs[start:end] @ signs[:end].T     # the points, less twice those that differ
        alike = likeness >= GRID * GRID - 2 * MAX_DIFFERENT
        alike[:, start:] &= np.tri(end - start, k=-1, dtype=bool)       # not oneself, nor those behind
        for row in np.flatnonzero(alike.any(1)):
            earlier = np.flatnonzero(alike[row])
            crosses = split_of[earlier] != split_of[start + row]
            best = (likeness[row, earlier] + 2 * GRID * GRID * crosses).argmax()
            yield numbers[start + row], numbers[earlier[best]]


def _crosses(looks: Looks, number: int, original: int) -> bool:
    return looks.places[number][0] != looks.places[original][0]


def _place(splits: Mapping[str, Annotations], looks: Looks, number: int) -> Place:
    split, index = looks.places[number]
    return splits[split].store.place(splits[split].images[index])


def _report(kind: Kind, verb: str, splits: Mapping[str, Annotations], looks: Looks, number: int, original: int,
            findings: Findings) -> None:
    (split, index), (other_split, other_index) = looks.places[number], looks.places[original]
    name, other = splits[split].images[index].file_name, splits[other_split].images[other_index].file_name
    findings.add(kind, splits[split].place_of_image(index), f"{name} of {split} {verb} {other} of {other_split}")
