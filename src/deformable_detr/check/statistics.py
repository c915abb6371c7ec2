"""Charts of a data set's objects: how many of each class, how large, of which shape, and where in their images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes

from deformable_detr.check.boxes import clipped_boxes, find_box_faults, image_extents
from deformable_detr.check.limits import Limits
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.plots import add_legend, count_on, label, note_empty, set_title, write

MAX_CLASSES = 20        # in the chart: those with the most objects
NUM_BINS = 40
BINS_PER_OCTAVE = 4     # from a value to its double
SIZES = (2.0**-2, 2.0**12)      # pixels; what is outside is counted in the first or the last bin
SHAPES = (2.0**-8, 2.0**8)


@dataclass(frozen=True)
class Statistics:
    """A split: its T objects that can be trained on, with boxes clipped to their images, and its P images."""

    classes: Counter[str]
    counts: Int64[np.ndarray, "P"]          # objects of each image
    extents: Float[np.ndarray, "P 2"]       # width and height of each image
    sizes: Float[np.ndarray, "T"]           # square root of width x height, after the image has been resized
    shapes: Float[np.ndarray, "T"]          # width / height
    centres: Float[np.ndarray, "T 2"]       # from 0 to 1


def measure(annotations: Annotations, limits: Limits) -> Statistics:
    """The statistics of a split."""
    usable = annotations.rows(find_box_faults(annotations).usable)
    boxes = clipped_boxes(usable)
    sides = boxes[:, 2:] - boxes[:, :2]
    scales = limits.scales(usable.images)[usable.image_index]
    return Statistics(
        Counter(usable.names[index] for index in usable.labels.tolist()),
        np.bincount(usable.image_index, minlength=len(usable.images)),
        usable.images.sizes[:, ::-1].astype(np.float64),
        np.sqrt(sides.prod(axis=1)) * scales, sides[:, 0] / sides[:, 1],
        (boxes[:, :2] + sides / 2) / image_extents(usable))


def draw_statistics(charts: Sequence[Axes], splits: Mapping[str, Annotations], limits: Limits) -> None:
    """Draw into six axes."""
    measured = {split: measure(annotations, limits) for split, annotations in splits.items()}
    every = list(measured.values())
    _draw_classes(charts[0], measured)
    _draw_counts(charts[1], [statistics.counts for statistics in every])
    for statistics in every:
        charts[2].scatter(*statistics.extents.T, s=16, alpha=0.5)
    charts[2].set(title="sizes of images", xlabel="width in pixels", ylabel="height in pixels")
    count_on(charts[2], "x")
    count_on(charts[2], "y")
    _draw_sizes(charts[3], [statistics.sizes for statistics in every], limits)
    _draw_logarithmic(charts[4], [statistics.shapes for statistics in every], SHAPES)
    charts[4].set(title="shapes of objects", xlabel="width / height", ylabel="objects")
    centres = np.concatenate([statistics.centres for statistics in every])
    charts[5].hist2d(*centres.T, bins=32, range=((0, 1), (0, 1)), cmap="magma")
    charts[5].invert_yaxis()
    charts[5].set(title="centres of objects", xlabel="x / width", ylabel="y / height")


def _draw_classes(axes: Axes, measured: Mapping[str, Statistics]) -> None:
    """A bar for each class, a colour for each split."""
    total: Counter[str] = sum((statistics.classes for statistics in measured.values()), Counter())
    names = [name for name, _ in total.most_common(MAX_CLASSES)]
    left = np.zeros(len(names))
    for number, (split, statistics) in enumerate(measured.items()):
        widths = np.array([statistics.classes[name] for name in names])
        axes.barh(range(len(names)), widths, left=left, label=split, color=f"C{number}")
        left += widths
    axes.tick_params(axis="y", labelsize="small")
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    for text, name in zip(axes.get_yticklabels(), names, strict=True):
        write(text, name)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    count_on(axes, "x")
    axes.set_xlabel("objects")
    if names:
        add_legend(axes)
    else:
        note_empty(axes)
    more = f" ({MAX_CLASSES} of {len(total)})" if len(total) > MAX_CLASSES else ""
    set_title(axes, f"objects of each class{more}")


def _draw_counts(axes: Axes, counts: Sequence[np.ndarray]) -> None:
    """A histogram of the number of objects in an image; `counts` are those of each split."""
    most = max(map(max, counts))
    step = max(1, most // NUM_BINS)
    axes.hist(counts, bins=np.arange(-0.5, most + step, step).tolist(), stacked=True)
    axes.set(title="objects in an image", xlabel="objects", ylabel="images")
    count_on(axes, "x")
    axes.set_xlim(left=-0.5)
    count_on(axes, "y")


def _draw_sizes(axes: Axes, sizes: Sequence[np.ndarray], limits: Limits) -> None:
    _draw_logarithmic(axes, sizes, SIZES)
    for edge, name in ((limits.stride, "a cell of the finest map"), (32, "small | medium"), (96, "medium | large")):
        axes.axvline(edge, color="black", linestyle=":", linewidth=1)
        axes.annotate(name, (edge, 0.98), (-2, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
                      rotation=90, va="top", ha="right", fontsize=8, bbox={"color": "white", "alpha": 0.7, "pad": 1})
    axes.set(title=f"sizes of objects (short side {limits.preprocessing.size})",
             xlabel="square root of width x height, in pixels", ylabel="objects")


def _draw_logarithmic(axes: Axes, values: Sequence[np.ndarray], limits: tuple[float, float]) -> None:
    """A histogram over whole octaves, at least one: equal values are a bar too."""
    inside = [some.clip(*limits) for some in values]
    every = np.log2(np.concatenate([np.zeros(0), *inside]))
    first, last = (np.floor(every.min()), np.floor(every.max()) + 1) if len(every) else (0, 1)
    edges = np.exp2(np.arange(first, last + 1e-6, 1 / BINS_PER_OCTAVE))
    axes.hist(inside, bins=edges.tolist(), stacked=True)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}")
    axes.xaxis.set_minor_formatter("")
    count_on(axes, "y")
    if not len(every):
        note_empty(axes)
