"""How training images are mirrored and rotated: as asked for, boxes with them, in every augmentation."""

import itertools

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from deformable_detr.loading.augmentation import Flip, train_transform
from deformable_detr.loading.transforms import QuarterTurn
from deformable_detr.preprocessing import Preprocessing

SIDE = 96
BOX = torch.tensor([[24.0, 36.0, 72.0, 60.0]])     # xyxy: wider than high, so that every turn is another box


def seen(augmentation: str, flip: Flip, quarter_turns: bool) -> set[tuple[bool, bool, bool]]:
    """In which ways the object's bright upper left quarter comes out: right, below, and in an upright object."""
    transform = train_transform(augmentation, Preprocessing(SIDE, 2 * SIDE), flip, quarter_turns=quarter_turns)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[36:60, 24:72] = 100
    image[36:48, 24:48] = 255
    ways = set()
    for seed in range(80):
        torch.manual_seed(seed)
        pixels, target = transform(image, BOX, torch.tensor([0]))
        if len(target.labels):
            box = (target.boxes[0] * torch.tensor(pixels.shape[:0:-1]).repeat(2)).tolist()
            if max(box[2:]) > 1.8 * min(box[2:]):   # not cut
                right, below = bright_quarter(pixels, *box)
                ways.add((right, below, box[3] > box[2]))
    return ways


def bright_quarter(pixels: torch.Tensor, x: float, y: float, width: float, height: float) -> tuple[bool, bool]:
    """Whether the brightest quarter of a box is on the right, and whether it is below."""
    return max(itertools.product((False, True), repeat=2), key=lambda quarter: float(
        pixels[:, int(y + height * (quarter[1] / 2 - 0.25)), int(x + width * (quarter[0] / 2 - 0.25))].mean()))


@pytest.mark.parametrize("augmentation", ["published", "small", "strong"])
def test_only_what_is_asked_for(augmentation: str) -> None:
    lying = {flip: {(right, below) for right, below, upright in seen(augmentation, flip, False) if not upright}
             for flip in ("none", "horizontal", "vertical", "both")}
    assert lying["none"] == {(False, False)}
    assert lying["horizontal"] == {(False, False), (True, False)}
    assert lying["vertical"] == {(False, False), (False, True)}
    assert lying["both"] == set(itertools.product((False, True), repeat=2))


def test_quarter_turns_do_not_mirror() -> None:
    assert seen("small", "none", True) == {(False, False, False), (False, True, True), (True, True, False),
                                           (True, False, True)}


def test_a_quarter_turn_moves_every_pixel_and_box_exactly() -> None:
    image = torch.randint(0, 255, (3, 31, 47), dtype=torch.uint8)
    boxes = torch.tensor([[3.0, 5, 20, 17], [0, 0, 47, 31]])
    turns = set()
    for seed in range(12):
        torch.manual_seed(seed)
        turned = QuarterTurn()({"image": tv_tensors.Image(image), "boxes": tv_tensors.BoundingBoxes(
            boxes, format="XYXY", canvas_size=(31, 47))})
        matching = [k for k in range(4) if torch.equal(turned["image"].as_subclass(torch.Tensor),
                                                       torch.rot90(image, k, (-2, -1)))]
        assert len(matching) == 1
        turns.update(matching)
        for before, after in zip(boxes, turned["boxes"].as_subclass(torch.Tensor), strict=True):
            marked = torch.zeros(31, 47)
            marked[int(before[1]):int(before[3]), int(before[0]):int(before[2])] = 1
            rows, columns = torch.rot90(marked, matching[0]).nonzero().T
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert after.tolist() == pytest.approx([float(edge) for edge in expected])
    assert turns == {0, 1, 2, 3}
