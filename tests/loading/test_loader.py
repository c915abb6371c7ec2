"""Batches: their shapes, their order, and that workers add no randomness of their own."""

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torch

from deformable_detr.datasets.findings import DataError
from deformable_detr.loading.augmentation import train_transform
from deformable_detr.loading.dataset import DetectionDataset, SampleKey
from deformable_detr.loading.loader import Process, build_loader
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from helpers.synthetic import box, image_entry, paint

SMALL = Preprocessing(size=64, max_size=96)
BCCD = Path(__file__).parent.parent / "fixtures" / "bccd"


@pytest.fixture
def mixed(write_data):
    """13 images: 8 landscape, 4 portrait, 1 square; the last has no objects."""
    sizes = [(48, 36)] * 5 + [(48, 32)] * 3 + [(36, 48)] * 4 + [(40, 40)]
    images = [image_entry(number, f"{number}.png", *size) for number, size in enumerate(sizes)]
    folder = write_data(images=images, annotations=[box(n + 1, n, 5, [4, 4, 20, 20]) for n in range(12)])
    for entry in images:
        paint(folder / "images" / entry["file_name"], entry["width"], entry["height"])
    return lambda transform: DetectionDataset(folder, "train", transform)


def ids_of(batches) -> list[list[int]]:
    return [[target.image_id for target in targets] for _, targets in batches]


def same(first, second) -> bool:
    return all(torch.equal(a.images, b.images) and torch.equal(a.padding, b.padding)
               and all(torch.equal(s.boxes, t.boxes) and s.image_id == t.image_id
                       for s, t in zip(targets, others, strict=True))
               for (a, targets), (b, others) in zip(first, second, strict=True))


def test_training_comes_in_few_shapes_and_every_image_once(mixed) -> None:
    dataset = mixed(train_transform("small", SMALL))
    loader = build_loader(dataset, 3, training=True)
    shapes = Counter()
    for epoch in range(6):
        loader.batch_sampler.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader) == 5
        assert sorted(chain(*ids_of(batches))) == list(range(13))
        assert [len(ids) for ids in ids_of(batches)] == [3, 3, 3, 3, 1]
        for batch, targets in batches:
            shapes[tuple(batch.images.shape[2:])] += 1
            for image, padding, (height, width) in zip(batch.images, batch.padding, batch.sizes, strict=True):
                assert not padding[:height, :width].any()
                assert padding.sum() == padding.numel() - height * width
                assert not image[:, padding].any()
            assert all(len(target.labels) == len(target.boxes) for target in targets)
    canvases = set(chain(*map(dataset.transform.canvases, ((36, 48), (48, 36), (40, 40)))))
    landscape_and_portrait = 3      # what is left of the groups, batched together
    assert len(shapes) <= len(canvases) + landscape_and_portrait
    assert all(side % 32 == 0 for shape in shapes for side in shape)


def test_published_shapes_are_free(mixed) -> None:
    dataset = mixed(train_transform("published", SMALL))
    shapes = [batch.images.shape[2:] for batch, _ in build_loader(dataset, 2, training=True)]
    assert any(side % 16 for shape in shapes for side in shape)


def test_evaluation_is_in_order_and_groups_shapes(mixed) -> None:
    dataset = mixed(eval_transform(SMALL))
    loader = build_loader(dataset, 4, training=False)
    batches = list(loader)
    assert sorted(chain(*ids_of(batches))) == list(range(13))
    assert sorted(len(ids) for ids in ids_of(batches)) == [1, 1, 3, 4, 4]
    assert ids_of(batches) == ids_of(loader)
    assert len({batch.images.shape[2:] for batch, _ in batches}) == 4
    sizes = sorted(tuple(size) for batch, _ in batches for size in batch.sizes)
    assert sizes == sorted(SMALL.resized(entry.size) for entry in dataset.annotations.images)


@pytest.mark.parametrize("divisor", [1, 7, 32])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_no_evaluation_batch_pads_an_image_more_than_it_would_be_alone(mixed, divisor: int, batch_size: int) -> None:
    dataset = mixed(eval_transform(Preprocessing(size=60, max_size=90, divisor=divisor)))
    alone = {key: (image, padding) for batch, (target,) in build_loader(dataset, 1, training=False)
             for key, image, padding in [(target.image_id, batch.images[0], batch.padding[0])]}
    seen = []
    for batch, targets in build_loader(dataset, batch_size, training=False):
        for target, image, padding in zip(targets, batch.images, batch.padding, strict=True):
            torch.testing.assert_close((image, padding), alone[target.image_id], rtol=0, atol=0)
            seen.append(target.image_id)
        assert all(0 <= whole - side < divisor for size in batch.sizes
                   for whole, side in zip(batch.images.shape[2:], size, strict=True))
    assert sorted(seen) == list(range(13))


@pytest.mark.parametrize(("count", "batch_size"), [(2, 1), (2, 3), (3, 2), (20, 1)])
def test_processes_share_an_evaluation_fairly(mixed, count: int, batch_size: int) -> None:
    dataset = mixed(eval_transform(SMALL))
    shares = [build_loader(dataset, batch_size, training=False, process=Process(index, count)).batch_sampler
              for index in range(count)]
    assert sorted(chain(*chain(*shares))) == list(range(13))
    numbers = [sum(map(len, share)) for share in shares]
    assert max(numbers) - min(numbers) <= batch_size


def test_the_preprocessings_divisor_is_kept() -> None:
    rule = Preprocessing(size=60, max_size=90, divisor=20)
    for transform in (train_transform("published", rule), eval_transform(rule)):
        dataset = DetectionDataset(BCCD, "train", transform)
        training = bool(transform.augmentation)
        for batch, _ in build_loader(dataset, 3, training=training):
            assert all(side % 20 == 0 for side in batch.images.shape[2:])


def test_epochs_and_seeds_decide(mixed) -> None:
    dataset = mixed(train_transform("small", SMALL))
    first, other = (build_loader(dataset, 3, training=True, seed=seed) for seed in (1, 2))
    epoch_0 = list(first)
    assert same(epoch_0, list(first))
    assert ids_of(epoch_0) != ids_of(other)
    first.batch_sampler.set_epoch(1)
    assert ids_of(epoch_0) != ids_of(first)
    first.batch_sampler.set_epoch(0)
    assert same(epoch_0, list(first))


def test_using_the_data_leaves_the_global_generator_alone(mixed) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataset = mixed(train_transform("small", SMALL))
    assert dataset[0].image.isfinite().all()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["small", "strong"])
def test_workers_change_nothing_and_follow_epochs(mixed, name: str) -> None:
    dataset = mixed(train_transform(name, SMALL))
    alone = build_loader(dataset, 3, training=True)
    helped = build_loader(dataset, 3, training=True, num_workers=2)
    for epoch in (0, 1, 0):
        for loader in (alone, helped):
            loader.batch_sampler.set_epoch(epoch)
        assert same(list(alone), list(helped))


def test_the_last_epochs_are_plain(mixed) -> None:
    strong, small = (mixed(train_transform(name, SMALL)) for name in ("strong", "small"))
    loader, other = (build_loader(dataset, 3, training=True, plain_from=1) for dataset in (strong, small))
    for epoch in range(3):
        for each in (loader, other):
            each.batch_sampler.set_epoch(epoch)
        assert [batch.images.shape for batch, _ in loader] == [batch.images.shape for batch, _ in other]
        assert all(torch.equal(a.images, b.images) for (a, _), (b, _) in zip(loader, other, strict=True)) == (epoch > 0)


def test_a_mosaic_shows_other_images_too(mixed) -> None:
    """The last image has no object of its own."""
    dataset = mixed(train_transform("strong", SMALL))
    canvas = dataset.transform.canvases((40, 40))[0]
    counts = [len(dataset[SampleKey(12, seed, canvas)].target.labels) for seed in range(40)]
    assert 8 < sum(count > 0 for count in counts) < 32
    assert max(counts) <= 3
    assert all(dataset[SampleKey(12, seed, canvas, plain=True)].target.labels.numel() == 0 for seed in range(10))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_image_is_named_in_one_line(mixed, num_workers: int) -> None:
    dataset = mixed(eval_transform(SMALL))
    image = dataset.annotations.store.source(dataset.annotations.images[4])
    image.write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        list(build_loader(dataset, 4, training=False, num_workers=num_workers))
    assert str(caught.value).startswith(f"{dataset.annotations.file}: image 4: {image}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_keeps_its_message_whatever_the_file_is_called(write_data, num_workers: int) -> None:
    name = "DataError: old.png"
    folder = write_data(images=[image_entry(1, name, 40, 30)], annotations=[])
    (folder / "images" / name).write_bytes(b"no image")
    dataset = DetectionDataset(folder, "train", eval_transform(SMALL))
    with pytest.raises(DataError) as caught:
        list(build_loader(dataset, 1, training=False, num_workers=num_workers))
    file = folder / "images" / name
    assert str(caught.value).startswith(f"{dataset.annotations.file}: image 1: {file}: not an image")
    assert "\n" not in str(caught.value)


def parts_of_steps(dataset: DetectionDataset, batch_size: int, accumulate: int,
                   count: int) -> list[list[list[SampleKey]]]:
    """For each process its batches of an epoch."""
    loaders = [build_loader(dataset, batch_size, training=True, accumulate=accumulate, process=Process(index, count))
               for index in range(count)]
    return [list(loader.batch_sampler) for loader in loaders]


@pytest.mark.parametrize(("batch_size", "accumulate", "count"), [(4, 1, 1), (2, 2, 1), (1, 4, 1), (2, 1, 2), (1, 2, 2),
                                                                 (1, 1, 4)])
def test_a_step_does_not_depend_on_the_number_of_processes(mixed, batch_size: int, accumulate: int, count: int) -> None:
    dataset = mixed(train_transform("small", SMALL))
    (whole,) = parts_of_steps(dataset, 4, 1, 1)
    parts = parts_of_steps(dataset, batch_size, accumulate, count)
    assert [len(step) for step in whole] == [4, 4, 4, 1]
    for number, step in enumerate(whole[:-1]):
        together = [key for part in parts for batch in part[number * accumulate:(number + 1) * accumulate]
                    for key in batch]
        assert together == step
    for part in parts:   # no process is without an image, so that none waits for another
        assert [key for batch in part[3 * accumulate:] for key in batch] == whole[-1]


@pytest.mark.parametrize(("batch_size", "accumulate", "count"), [(1, 2, 2), (1, 3, 2), (1, 4, 3), (2, 2, 4)])
def test_processes_get_the_same_number_of_batches_if_even(mixed, batch_size: int, accumulate: int,
                                                                      count: int) -> None:
    dataset = mixed(train_transform("small", SMALL))

    def batches(index: int, even: bool) -> list[list[SampleKey]]:
        loader = build_loader(dataset, batch_size, training=True, accumulate=accumulate, even=even,
                              process=Process(index, count))
        return list(loader.batch_sampler)

    parts = [batches(index, even=True) for index in range(count)]
    assert len({len(part) for part in parts}) == 1
    seen = [{key.index for part in every for batch in part for key in batch}
            for every in (parts, [batches(index, even=False) for index in range(count)])]
    assert seen[0] == seen[1] == set(range(len(dataset)))


@pytest.mark.parametrize(("batch_size", "accumulate", "count"), [(2, 2, 1), (3, 1, 2), (1, 3, 2)])
def test_an_epoch_can_begin_in_its_middle(mixed, batch_size: int, accumulate: int, count: int) -> None:
    dataset = mixed(train_transform("small", SMALL))
    for index in range(count):
        batches = build_loader(dataset, batch_size, training=True, accumulate=accumulate,
                               process=Process(index, count)).batch_sampler
        batches.set_epoch(3)
        whole = list(batches)
        assert len(whole) == len(batches)
        for first in range(batches.num_steps + 1):
            batches.set_epoch(3, first)
            assert list(batches) == whole[first * accumulate:]
            assert len(batches) == len(whole[first * accumulate:])


def test_processes_share_an_evaluation(mixed) -> None:
    dataset = mixed(eval_transform(SMALL))
    whole = ids_of(build_loader(dataset, 3, training=False))
    parts = [ids_of(build_loader(dataset, 3, training=False, process=Process(index, 2))) for index in range(2)]
    assert sorted(chain(*parts)) == sorted(whole)


@pytest.mark.parametrize("fault", [{"batch_size": 0}, {"batch_size": 1, "accumulate": 0}])
def test_counts_below_one_are_refused(fault: dict[str, int]) -> None:
    dataset = DetectionDataset(BCCD, "train", eval_transform(SMALL))
    with pytest.raises(ValueError, match=r"(batch_size|accumulate): expected at least 1, got 0"):
        build_loader(dataset, training=False, **fault)
