"""Four images in one: each in its quarter, boxes on their objects, and nothing else."""

import numpy as np
import pytest
import torch

from deformable_detr.loading.mosaic import Annotated, mosaic

COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]])


def marked(label: int, height: int, width: int) -> Annotated:
    """A black image with two boxes in the colour of the label."""
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.5, 0.6, 0.9, 0.9]]) * torch.tensor([width, height] * 2)
    boxes = boxes.round()
    image = np.zeros((height, width, 3), np.uint8)
    for left, top, right, bottom in boxes.int().tolist():
        image[top:bottom, left:right] = COLOURS[label]
    return Annotated(image, boxes, torch.tensor([label, label]))


def seeded(seed: int, four: list[Annotated], size: tuple[int, int]) -> Annotated:
    torch.manual_seed(seed)
    return mosaic(four, size)


def test_boxes_stay_on_their_objects() -> None:
    four = [marked(0, 90, 120), marked(1, 120, 90), marked(2, 60, 200), marked(3, 300, 300)]
    counts = set()
    for seed in range(30):
        whole = seeded(seed, four, (160, 224))
        assert whole.image.shape == (160, 224, 3)
        counts.add(len(whole.labels))
        centres = {label: [] for label in range(4)}
        for (left, top, right, bottom), label in zip(whole.boxes.tolist(), whole.labels.tolist(), strict=True):
            assert 0 <= left < right <= 224
            assert 0 <= top < bottom <= 160
            inside = torch.from_numpy(whole.image[round(top) + 2:round(bottom) - 2, round(left) + 2:round(right) - 2])
            if inside.numel():
                assert (inside.int() - COLOURS[label]).abs().float().mean() < 10
            centres[label].append(((left + right) / 2, (top + bottom) / 2))
        for x, y in centres[0]:
            assert all(x < other[0] for other in centres[1])
            assert all(y < other[1] for other in centres[2])
    assert max(counts) > 5
    assert min(counts) < 8   # windows leave objects out


def test_the_whole_frame_is_filled() -> None:
    white = Annotated(np.full((50, 70, 3), 255, np.uint8), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    for seed in range(10):
        whole = seeded(seed, [white] * 4, (64, 96))
        assert (whole.image == 255).all()
        assert whole.boxes.shape == (0, 4)


def test_chance_is_torchs_alone() -> None:
    four = [marked(label, 60, 80) for label in range(4)]
    first, again, other = (seeded(seed, four, (64, 96)) for seed in (1, 1, 2))
    assert np.array_equal(first.image, again.image)
    assert torch.equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_tiny_frames_and_images(size: tuple[int, int]) -> None:
    four = [marked(0, 60, 80), marked(1, 1, 1), marked(2, 1, 300), marked(3, 300, 1)]
    for seed in range(10):
        assert seeded(seed, four, size).image.shape == (*size, 3)
