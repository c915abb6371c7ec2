"""Repairs of a data set that are certain. Each step returns a new data set, and counts what it did."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deformable_detr.check.boxes import BoxFaults, clipped_boxes, faults_of_splits, find_box_faults, two_corners
from deformable_detr.check.images import ImageScan, ScannedImage
from deformable_detr.check.objects import find_duplicates
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import Place
from deformable_detr.datasets.image_list import ImageList

SAME_SHAPE = 0.01                   # by which width / height of two sizes of one image may differ
ORDER = ("train", "val", "test")    # the last split that has an image keeps it

Done = Counter[str]                 # repairs, and how often each was made


@dataclass(frozen=True)
class Part:
    """A split, and the scan of each of its images."""

    annotations: Annotations
    scanned: tuple[ScannedImage | None, ...]

    def subset(self, kept: Sequence[int]) -> "Part":
        """The images of these indices, in this order."""
        return Part(self.annotations.subset(kept), tuple(self.scanned[index] for index in kept))


def repair(splits: Mapping[str, Annotations], scan: ImageScan) -> tuple[dict[str, Part], Done]:
    """Make every repair, in this order."""
    done: Done = Counter()
    faults = faults_of_splits(splits)    # as the check has found them: of whole splits, before images are left out
    parts = {split: Part(repair_boxes(annotations, faults[split], done), scan.of(split))
             for split, annotations in splits.items()}
    parts = {split: drop_broken(merge_entries(part, done)) for split, part in parts.items()}
    parts = drop_copies(parts, done)
    for step in (fit_sizes, drop_duplicates):
        parts = {split: step(part, done) for split, part in parts.items()}
    done["splits without any image left out"] += sum(not part.scanned for part in parts.values())
    return {split: part for split, part in parts.items() if part.scanned}, +done


def repair_boxes(before: Annotations, faults: BoxFaults, done: Done) -> Annotations:
    """Boxes in pixels and clipped to their images; those without area there are left out.

    Where the boxes are two corners, those that cannot be have another fault, and are left out too.
    """
    boxes = faults.in_pixels
    done["boxes turned from fractions to pixels"] += int(faults.fractions.sum())
    if faults.corners.any():
        first, second = np.split(two_corners(before, boxes), 2, axis=1)
        boxes = np.where(faults.corners[:, None], np.concatenate([first, second - first], axis=1), 0)
        done["boxes turned from corners to sizes"] += int(faults.corners.sum())
    corner, size = np.split(boxes, 2, axis=1)
    repaired = replace(before, boxes=np.concatenate([np.minimum(corner, corner + size), np.abs(size)], axis=1))
    done["boxes with swapped corners put right"] += int(faults.swapped.sum())
    done["boxes clipped to their image"] += int(find_box_faults(repaired).over.sum())
    first, last = np.split(clipped_boxes(repaired), 2, axis=1)
    boxes = np.concatenate([first, last - first], axis=1)
    areas = np.where((boxes == before.boxes).all(1), before.areas, boxes[:, 2:].prod(1))
    kept = boxes[:, 2:].min(1) > 0
    done["boxes without area inside their image left out"] += int((~kept).sum())
    return replace(before, boxes=boxes, areas=areas).rows(kept)


def merge_entries(part: Part, done: Done) -> Part:
    """Each image once, with the objects of all of its entries."""
    first: dict[Place, int] = {}
    for index, image in enumerate(part.annotations.images):
        first.setdefault(part.annotations.store.place(image), index)
    target = np.array([first[part.annotations.store.place(image)] for image in part.annotations.images], np.int64)
    done["images listed twice made one"] += len(target) - len(first)
    merged = replace(part.annotations, image_index=target[part.annotations.image_index])
    return Part(merged, part.scanned).subset(list(first.values()))


def drop_broken(part: Part) -> Part:
    """The images that can be read."""
    return part.subset([index for index, scanned in enumerate(part.scanned) if scanned])


def drop_copies(parts: Mapping[str, Part], done: Done) -> dict[str, Part]:
    """Each image in one split only, and there once: the copy with the most objects."""
    copies: dict[bytes, list[tuple[int, int, str, int]]] = defaultdict(list)
    for split, part in parts.items():
        counts = np.bincount(part.annotations.image_index, minlength=len(part.scanned)).tolist()
        for index, scanned in enumerate(part.scanned):
            if scanned:
                copies[scanned.digest].append((ORDER.index(split), counts[index], split, -index))
    best = {(split, -index) for _, _, split, index in map(max, copies.values())}
    done["copies of images left out"] += sum(map(len, copies.values())) - len(best)
    return {split: part.subset([index for index in range(len(part.scanned)) if (split, index) in best])
            for split, part in parts.items()}


def fit_sizes(part: Part, done: Done) -> Part:
    """Sizes as the files have them: boxes are scaled where the shape is the same, else the image is left out."""
    images, scales, kept = list(part.annotations.images), np.ones((len(part.scanned), 2)), []
    for index, (image, scanned) in enumerate(zip(part.annotations.images, part.scanned, strict=True)):
        sizes = [scanned.upright, scanned.stored] if scanned else []
        if image.size not in sizes:
            sizes = [size for size in sizes
                     if abs(size[1] * image.height / (size[0] * image.width) - 1) < SAME_SHAPE]
            if not sizes:
                continue
            height, width = sizes[0]
            scales[index] = width / image.width, height / image.height
            images[index] = replace(image, width=width, height=height)
        kept.append(index)
    done["images whose boxes were scaled to the size of the file"] += int((scales != 1).any(1).sum())
    done["images of another shape than the annotations say left out"] += len(images) - len(kept)
    index = part.annotations.image_index
    fitted = replace(part.annotations, images=ImageList.of(images),
                     areas=part.annotations.areas * scales.prod(1)[index],
                     boxes=part.annotations.boxes * np.tile(scales, 2)[index])
    return Part(fitted, part.scanned).subset(kept)


def drop_duplicates(part: Part, done: Done) -> Part:
    """Each box of a class once."""
    twice, _ = find_duplicates(part.annotations)
    done["boxes given twice left out once"] += int(twice.sum())
    return Part(part.annotations.rows(~twice), part.scanned)
