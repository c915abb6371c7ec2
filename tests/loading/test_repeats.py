"""Images with rare classes come more often in an epoch, by LVIS' definition, and never as copies of each other."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deformable_detr.loading.augmentation import train_transform
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.loader import Process, TrainingBatches
from deformable_detr.loading.repeats import image_repeats
from deformable_detr.loading.targets import TrainingObjects
from deformable_detr.preprocessing import Preprocessing

BCCD = Path(__file__).parent.parent / "fixtures" / "bccd"


def objects(*labels: tuple[int, ...]) -> TrainingObjects:
    """The classes of the objects of each image."""
    flat = [label for image in labels for label in image]
    starts = np.cumsum([0, *map(len, labels)])
    return TrainingObjects(np.zeros((len(flat), 4), np.float32), np.array(flat, np.int64), starts, 0)


def test_an_image_comes_as_often_as_its_rarest_class_asks() -> None:
    """Of 100 images 4 have the rare class: sqrt(0.16 / 0.04) = 2."""
    targets = objects(*[(0, 1)] * 4, *[(0, 0)] * 80, *[()] * 16)
    repeats = image_repeats(targets, 3, 0.16, seed=1)
    assert repeats.tolist() == [2] * 4 + [1] * 96
    assert image_repeats(targets, 3, 0.04, seed=1).tolist() == [1] * 100    # no class is rarer


def test_a_fraction_is_drawn_once() -> None:
    """Of 1000 images 250 have the class: sqrt(0.5625 / 0.25) = 1.5."""
    targets = objects(*[(0,)] * 250, *[()] * 750)
    repeats = image_repeats(targets, 1, 0.5625, seed=3)
    assert set(repeats[:250]) == {1, 2}
    assert 1.4 < repeats[:250].mean() < 1.6
    assert (repeats[250:] == 1).all()
    assert np.array_equal(repeats, image_repeats(targets, 1, 0.5625, seed=3))
    assert not np.array_equal(repeats, image_repeats(targets, 1, 0.5625, seed=4))


def test_without_objects_every_image_comes_once() -> None:
    assert image_repeats(objects((), ()), 2, 1.0, seed=0).tolist() == [1, 1]


@pytest.mark.parametrize("count", [1, 2])
def test_an_epoch_has_each_image_that_often_and_differently_each_time(count: int) -> None:
    dataset = DetectionDataset(BCCD, "train", train_transform("small", Preprocessing(size=64, max_size=96)))
    repeats = np.arange(len(dataset)) % 3 + 1
    shares = [TrainingBatches(dataset, 2, seed=5, process=Process(index, count), repeats=repeats)
              for index in range(count)]
    keys = [key for share in shares for batch in share for key in batch]
    assert sum(map(len, shares)) == sum(len(list(share)) for share in shares)
    assert shares[0].num_steps == -(-int(repeats.sum()) // (2 * count))
    times = Counter(key.index for key in keys)
    assert [times[index] for index in range(len(dataset))] == repeats.tolist()
    assert len({key.seed for key in keys}) == len(keys)


def test_once_each_is_what_it_was_without_repeats() -> None:
    dataset = DetectionDataset(BCCD, "train", train_transform("small", Preprocessing(size=64, max_size=96)))
    once = TrainingBatches(dataset, 2, seed=5, repeats=np.ones(len(dataset), np.int64))
    assert list(once) == list(TrainingBatches(dataset, 2, seed=5))
