"""A contact sheet of a data set: statistics of its objects, and below them some of its images with their boxes."""

from collections.abc import Mapping

import numpy as np
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deformable_detr.check.limits import Limits
from deformable_detr.check.statistics import draw_statistics
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError
from deformable_detr.drawing import draw_boxes
from deformable_detr.plots import style, to_png, write

NUM_IMAGES = 12
COLUMNS = 4
SIDE = 480              # pixels, the longer one of an image in the sheet
HEIGHTS = (8.0, 3.2)    # of the statistics and of a row of images, in inches


def draw_sheet(splits: Mapping[str, Annotations], limits: Limits) -> bytes:
    """The contact sheet as a PNG file."""
    chosen = _chosen(splits)
    num_rows = -(-len(chosen) // COLUMNS)
    heights = HEIGHTS[0], HEIGHTS[1] * num_rows
    with style():
        figure = Figure(figsize=(16, sum(heights)), layout="constrained")
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).ravel()
        draw_statistics(list(above.subplots(2, 3).ravel()), splits, limits)
        tiles = below.subplots(num_rows, COLUMNS, squeeze=False).ravel()
        for axes in tiles:
            axes.axis("off")
        for axes, (split, index) in zip(tiles, chosen, strict=False):
            _draw_tile(axes, split, splits[split], index)
        return to_png(figure, dpi=100)


def _draw_tile(axes: Axes, split: str, annotations: Annotations, index: int) -> None:
    write(axes.set_title("", fontsize=9), f"{split}: {annotations.images[index].file_name}")
    try:
        axes.imshow(_with_boxes(annotations, index))
    except DataError as error:
        write(axes.text(0, 0.5, "", fontsize=9), str(error))


def _chosen(splits: Mapping[str, Annotations]) -> list[tuple[str, int]]:
    """Split and index of images spread evenly over the data set."""
    every = [(split, index) for split, annotations in splits.items() for index in range(len(annotations.images))]
    spread = np.linspace(0, len(every) - 1, min(NUM_IMAGES, len(every))).round().astype(int)
    return [every[position] for position in spread]


def _with_boxes(annotations: Annotations, index: int) -> PIL.Image.Image:
    """A small image with all its boxes, and the name of each class once. Raises DataError."""
    image = annotations.images[index]
    small = PIL.Image.fromarray(annotations.read_image(index))
    small.thumbnail((SIDE, SIDE))
    boxes = annotations.boxes[annotations.image_index == index]
    labels = annotations.labels[annotations.image_index == index]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    scale = np.array([small.width / image.width, small.height / image.height] * 2)
    first = {label: row for row, label in reversed(list(enumerate(labels.tolist())))}
    captions = [annotations.names[label] if first[label] == row else "" for row, label in enumerate(labels.tolist())]
    return draw_boxes(small, corners * scale, captions, labels)
