"""Charts of a data set's objects: how many of what, how large, what shape, where."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from deformable_detr.check.limits import Limits
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.targets import find_box_faults, image_extents

MAX_CLASSES = 20        # in the chart: those with the most objects
MAX_NAME = 40           # letters
NUM_BINS = 40


@dataclass(frozen=True)
class Statistics:
    """Of a split; over its T objects that can be trained on, and its P images."""

    classes: Counter[str]
    counts: Int64[np.ndarray, "P"]          # objects of each image
    extents: Float[np.ndarray, "P 2"]       # width and height of each
    sizes: Float[np.ndarray, "T"]           # square root of width x height, once the image has been resized
    shapes: Float[np.ndarray, "T"]          # width / height
    centres: Float[np.ndarray, "T 2"]       # from 0 to 1


def statistics_of(annotations: Annotations, limits: Limits) -> Statistics:
    """Measure a split."""
    usable = annotations.rows(find_box_faults(annotations).usable)
    corners, sides = usable.boxes[:, :2], usable.boxes[:, 2:]
    scales = limits.scales(usable.images)[usable.image_index]
    return Statistics(
        Counter(usable.names[label] for label in usable.labels.tolist()),
        np.bincount(usable.image_index, minlength=len(usable.images)),
        usable.images.sizes[:, ::-1].astype(np.float64),
        np.sqrt(sides.prod(axis=1)) * scales, sides[:, 0] / sides[:, 1],
        (corners + sides / 2) / image_extents(usable))


def draw_statistics(charts: Sequence[Any], splits: Mapping[str, Annotations], limits: Limits) -> None:
    """Draw into six of matplotlib's axes."""
    found = {split: statistics_of(annotations, limits) for split, annotations in splits.items()}
    draw_classes(charts[0], found)
    counts = [statistics.counts for statistics in found.values()]
    step = max(1, max(map(max, counts)) // NUM_BINS)
    charts[1].hist(counts, bins=np.arange(-0.5, max(map(max, counts)) + step, step), stacked=True)
    charts[1].set(title="objects in an image", xlabel="objects", ylabel="images")
    for statistics in found.values():
        charts[2].scatter(*statistics.extents.T, s=16, alpha=0.5)
    charts[2].set(title="sizes of images", xlabel="width in pixels", ylabel="height in pixels", xlim=0, ylim=0)
    _draw_logarithmic(charts[3], [statistics.sizes for statistics in found.values()])
    for edge, name in ((limits.stride, "a pixel of the finest map"), (32, "small | medium"), (96, "medium | large")):
        charts[3].axvline(edge, color="black", linestyle=":")
        charts[3].annotate(name, (edge, 0.98), (-2, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
                           rotation=90, va="top", ha="right", fontsize=8)
    charts[3].set(title=f"sizes of objects, once the short side is {limits.preprocessing.size} pixels",
                  xlabel="square root of width x height, in pixels", ylabel="objects")
    _draw_logarithmic(charts[4], [statistics.shapes for statistics in found.values()])
    charts[4].set(title="shapes of objects", xlabel="width / height", ylabel="objects")
    centres = np.concatenate([statistics.centres for statistics in found.values()])
    charts[5].hist2d(*centres.T, bins=32, range=((0, 1), (0, 1)), cmap="magma")
    charts[5].invert_yaxis()
    charts[5].set(title="where objects are", xlabel="x / width", ylabel="y / height")


def draw_classes(axes: Any, found: Mapping[str, Statistics]) -> None:
    """A bar a class, a colour a split."""
    total: Counter[str] = sum((statistics.classes for statistics in found.values()), Counter())
    names = [name for name, _ in total.most_common(MAX_CLASSES)]
    left = np.zeros(len(names))
    for split, statistics in found.items():
        widths = np.array([statistics.classes[name] for name in names])
        axes.barh([plain(name) for name in names], widths, left=left, label=split)
        left += widths
    axes.invert_yaxis()
    axes.legend()
    more = f" (the {MAX_CLASSES} most frequent of {len(total)})" if len(total) > MAX_CLASSES else ""
    axes.set(title=f"objects of each class{more}", xlabel="objects")


def plain(name: str) -> str:
    """A name that matplotlib takes for no formula, shortened in its middle."""
    short = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME // 2]}...{name[-MAX_NAME // 2:]}"
    return short.replace("$", r"\$")


def _draw_logarithmic(axes: Any, values: Sequence[np.ndarray]) -> None:
    every = np.concatenate(values)
    low, high = (every.min(), every.max()) if len(every) else (1.0, 2.0)
    axes.hist(values, bins=np.geomspace(low / 1.1, high * 1.1, NUM_BINS), stacked=True)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
