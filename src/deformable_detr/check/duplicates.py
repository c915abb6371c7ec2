"""Images that occur twice, or look as if they did: within a split or, worse, in two."""

from collections.abc import Iterator, Mapping

import numpy as np

from deformable_detr.check.images import GRID, ImageScan
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Findings, Place
from deformable_detr.datasets.kinds import Fault

# Of the 256 points of two fingerprints. Copies of photographs that were made smaller, compressed, or changed in
# brightness differ in up to 31 of them, different photographs of the same set in 38 and more.
MAX_DIFFERENT = 32
AT_ONCE = 2**25         # comparisons of two images, in about 200 MB


def check_duplicates(splits: Mapping[str, Annotations], scan: ImageScan, findings: Findings) -> None:
    """Report images with the bytes of an earlier one, and those that look like one."""
    copies = dict(find_copies(scan))
    for number, original in copies.items():
        crosses = _crosses(scan, number, original)
        if crosses or _place(splits, scan, number) != _place(splits, scan, original):    # not only listed twice
            kind = Fault.PICTURE_LEAK if crosses else Fault.PICTURE_DUPLICATE
            _report(kind, "has the bytes of", splits, scan, number, original, findings)
    for number, original in find_alike(scan, set(copies)):
        kind = Fault.PICTURE_SIMILAR_LEAK if _crosses(scan, number, original) else Fault.PICTURE_SIMILAR
        _report(kind, "looks like", splits, scan, number, original, findings)


def find_copies(scan: ImageScan) -> Iterator[tuple[int, int]]:
    """Images with the bytes of an earlier one, and the first of those, by their numbers over all splits."""
    first: dict[bytes, int] = {}
    for number, scanned in enumerate(scan.images):
        if scanned and first.setdefault(scanned.digest, number) != number:
            yield number, first[scanned.digest]


def find_alike(scan: ImageScan, copies: set[int]) -> Iterator[tuple[int, int]]:
    """Images that look like an earlier one, and the most similar of those, preferably of another split."""
    numbers = [number for number, scanned in enumerate(scan.images)
               if scanned and scanned.fingerprint is not None and number not in copies]
    if not numbers:
        return
    prints = np.stack([scan.images[number].fingerprint for number in numbers])  # type: ignore[union-attr]
    signs = np.where(prints, np.float32(1), np.float32(-1))
    split_of = np.unique([scan.places[number][0] for number in numbers], return_inverse=True)[1]
    num_rows = max(1, AT_ONCE // len(numbers))
    for start in range(0, len(numbers), num_rows):
        end = min(start + num_rows, len(numbers))
        likeness = signs[start:end] @ signs[:end].T     # number of points, minus twice those that differ
        alike = likeness >= GRID * GRID - 2 * MAX_DIFFERENT
        alike[:, start:] &= np.tri(end - start, k=-1, dtype=bool)       # neither itself nor later ones
        for row in np.flatnonzero(alike.any(1)):
            earlier = np.flatnonzero(alike[row])
            crosses = split_of[earlier] != split_of[start + row]
            best = (likeness[row, earlier] + 2 * GRID * GRID * crosses).argmax()
            yield numbers[start + row], numbers[earlier[best]]


def _crosses(scan: ImageScan, number: int, original: int) -> bool:
    return scan.places[number][0] != scan.places[original][0]


def _place(splits: Mapping[str, Annotations], scan: ImageScan, number: int) -> Place:
    split, index = scan.places[number]
    return splits[split].store.place(splits[split].images[index])


def _report(kind: Fault, verb: str, splits: Mapping[str, Annotations], scan: ImageScan, number: int, original: int,
            findings: Findings) -> None:
    (split, index), (other_split, other_index) = scan.places[number], scan.places[original]
    name, other = splits[split].images[index].file_name, splits[other_split].images[other_index].file_name
    findings.add(kind, splits[split].place_of_image(index), f"{name} of {split} {verb} {other} of {other_split}")
