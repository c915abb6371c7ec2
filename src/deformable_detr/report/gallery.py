"""The best and the worst images, each with its annotations next to the detections."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from jaxtyping import Bool, Float, Int

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.drawing import MAX_LETTERS, Colour, draw_coloured
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.report.comparing import Comparison, compare

NUM_IMAGES = 4      # best, and as many worst
SIDE = 560          # pixels, the longer side
QUALITY = 82

# Blue and vermilion of Okabe and Ito's palette, which most colour-blind readers can tell apart.
RIGHT: Colour = (0, 114, 178)
WRONG: Colour = (213, 94, 0)
NEITHER: Colour = (128, 128, 128)


@dataclass(frozen=True)
class ShownImage:
    """One image on the page; `truth` and `found` are `data:` addresses."""

    file_name: str
    truth: str
    found: str
    width: int
    height: int
    right: int
    wrong: int
    missed: int


def choose_images(counts: Float[np.ndarray, "P 3"]) -> tuple[Int[np.ndarray, "worst"], Int[np.ndarray, "best"]]:
    """The worst and the best images by F1; `counts` are what is right, wrong and missed in each.

    Among equals those with the most mistakes, or with the most right detections, come first. No image is in both.
    """
    right, mistakes = counts[:, 0], counts[:, 1:].sum(axis=1)
    f1 = 2 * right / np.maximum(2 * right + mistakes, 1)
    bad, good = (np.flatnonzero(number) for number in (mistakes, right))
    worst = bad[np.lexsort((-mistakes[bad], f1[bad]))]
    best = good[np.lexsort((-right[good], -f1[good]))]
    worst = worst[:min(NUM_IMAGES, max(1, len(counts) // 2))]
    return worst, best[~np.isin(best, worst)][:NUM_IMAGES]


def show_images(evaluator: CocoEvaluator, images: Int[np.ndarray, "P"], threshold: float) -> Iterator[ShownImage]:
    """These images with the detections that reach a threshold. Raises DataError for one that cannot be read."""
    for comparison in compare(evaluator, images):
        yield _show_image(comparison.above(threshold), evaluator.annotations)


def _show_image(comparison: Comparison, annotations: Annotations) -> ShownImage:
    crowd = comparison.crowd
    names = [name[:MAX_LETTERS] for name in annotations.names]
    canvas = PIL.Image.fromarray(annotations.read_image(comparison.image))
    scale = SIDE / max(canvas.size)
    canvas = canvas.resize((max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale))),
                           PIL.Image.Resampling.LANCZOS)
    found = comparison.found_objects(comparison.overlaps())
    in_crowd = np.append(crowd, False)[found]
    is_found = np.isin(np.arange(len(crowd)), found)
    truth = _drawn(canvas, comparison.objects * scale, [names[label] for label in comparison.object_labels],
                   _colours(is_found, crowd))
    captions = [f"{names[label]} {score:.2f}"
                for label, score in zip(comparison.labels, comparison.scores, strict=True)]
    detections = _drawn(canvas, comparison.boxes * scale, captions, _colours(found >= 0, in_crowd))
    return ShownImage(annotations.images[comparison.image].file_name, truth, detections, *canvas.size,
                      right=int(((found >= 0) & ~in_crowd).sum()), wrong=int((found < 0).sum()),
                      missed=int((~is_found & ~crowd).sum()))


def _colours(right: Bool[np.ndarray, "D"], neither: Bool[np.ndarray, "D"]) -> list[Colour]:
    return [NEITHER if grey else RIGHT if blue else WRONG for blue, grey in zip(right, neither, strict=True)]


def _drawn(canvas: PIL.Image.Image, boxes: Float[np.ndarray, "D 4"], captions: Sequence[str],
           colours: Sequence[Colour]) -> str:
    """The image with boxes (x, y, width, height), as an address that contains a whole JPEG."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    file = io.BytesIO()
    draw_coloured(canvas, corners, captions, colours).save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
