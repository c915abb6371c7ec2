"""Which images are shown, and how."""

import base64
import io
from pathlib import Path

import numpy as np
import PIL.Image

from deformable_detr.detections import Detections
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.report.gallery import NEITHER, RIGHT, SIDE, WRONG, choose_images, show_images

BCCD = Path(__file__).parents[1] / "fixtures" / "bccd"


def test_the_worst_and_the_best() -> None:
    counts = np.array([[5, 0, 0], [9, 0, 0], [0, 3, 1], [0, 9, 1], [0, 0, 0], [1, 1, 1], [3, 1, 0], [4, 0, 0],
                       [1, 5, 5], [2, 0, 0]], np.float64)
    worst, best = choose_images(counts)
    assert worst.tolist() == [3, 2, 8, 5]
    assert best.tolist() == [1, 0, 7, 9]


def test_few_images() -> None:
    assert [chosen.tolist() for chosen in choose_images(np.array([[1.0, 1, 1]]))] == [[0], []]
    assert [chosen.tolist() for chosen in choose_images(np.array([[1.0, 1, 1], [1, 2, 1], [3, 1, 1]]))] == [[1], [2, 0]]
    assert [chosen.tolist() for chosen in choose_images(np.array([[2.0, 0, 0], [0, 0, 0]]))] == [[], [0]]
    assert [chosen.tolist() for chosen in choose_images(np.array([[0.0, 0, 0]]))] == [[], []]


def decoded(address: str) -> PIL.Image.Image:
    head, _, content = address.partition(",")
    assert head == "data:image/jpeg;base64"
    return PIL.Image.open(io.BytesIO(base64.b64decode(content)))


def has(image: PIL.Image.Image, colour: tuple[int, int, int]) -> bool:
    """Whether a colour is there, as nearly as JPEG keeps it."""
    difference = np.abs(np.asarray(image).astype(int) - colour).max(axis=2)
    return bool((difference < 12).sum() > 50)


def test_annotations_and_detections_of_an_image() -> None:
    data = DetectionDataset(BCCD, "val", eval_transform(Preprocessing(size=120, max_size=160)))
    boxes, labels = (tensor.numpy() for tensor in data.truth(2))
    evaluator = CocoEvaluator(data.annotations)
    found = np.concatenate([boxes[:-2], [[2, 2, 20, 20]], boxes[-2:-1]])      # one false, one missed, one too weak
    scores = np.array([0.9] * (len(boxes) - 1) + [0.2], np.float32)
    evaluator.add(data.annotations.images[2].id, Detections(
        found.astype(np.float32), scores, np.append(labels[:-2], [0, labels[-2]]), [""] * len(scores), (480, 640)))
    shown, empty = show_images(evaluator, np.array([2, 0]), 0.5)
    assert (shown.right, shown.wrong, shown.missed) == (len(boxes) - 2, 1, 2)
    assert (shown.width, shown.height) == (SIDE, SIDE * 3 // 4)
    for address in (shown.truth, shown.found):
        image = decoded(address)
        assert image.size == (SIDE, SIDE * 3 // 4)
        assert has(image, RIGHT)
        assert has(image, WRONG)
        assert not has(image, NEITHER)
    assert (empty.right, empty.wrong, empty.missed) == (0, 0, len(data.truth(0)[0]))
    assert not has(decoded(empty.found), WRONG)
