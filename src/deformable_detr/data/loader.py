"""Batches: which pictures come together, in which order, padded to which shape.

A new input shape makes oneDNN, on a CPU, prepare its kernels anew; a compiled model is compiled anew. So batches
come in few shapes.
All chance follows from (seed, epoch, picture): it is the same for any number of worker processes, and any
epoch can be run again.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil, lcm

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import BatchSampler, DataLoader, Sampler

from deformable_detr.data.coco import CocoDataset, Sample, SampleKey
from deformable_detr.structures import ImageBatch, ImageSize, Target

Batch = tuple[ImageBatch, list[Target]]

EVALUATION_DIVISOR = 32    # sides that differ by less become one shape


def build_loader(dataset: CocoDataset, batch_size: int, *, training: bool, seed: int = 0,
                 num_workers: int = 0, size_divisor: int | None = None) -> DataLoader[Sample]:
    """A loader of (ImageBatch, list[Target]): every picture once an epoch; the last batch may be smaller.

    In training order and augmentation are random; `loader.batch_sampler.set_epoch(epoch)` says which (on a
    loader that Accelerate has prepared, `loader.set_epoch(epoch)`). In evaluation pictures of one shape come
    together, in a fixed order. Heights and widths are padded to multiples of the preprocessing's divisor, and
    of `size_divisor`: by default 1 in training, where the transform decides on shapes, and 32 in evaluation.
    Raises ValueError for a batch size or divisor below 1.
    """
    if size_divisor is None:
        size_divisor = 1 if training else EVALUATION_DIVISOR
    for name, value in (("batch_size", batch_size), ("size_divisor", size_divisor)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    divisor = lcm(size_divisor, dataset.transform.preprocessing.divisor)
    if training:
        batches = TrainingBatches(dataset, batch_size, seed)
    else:
        batches = BatchSampler(_by_shape(dataset, divisor), batch_size, drop_last=False)
    return DataLoader(dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=Collate(divisor),
                      persistent_workers=num_workers > 0, pin_memory=False)


class TrainingBatches(Sampler[list[SampleKey]]):
    """Shuffled batches, each of pictures that share one canvas, which is drawn for the batch.

    The rest of each group, less than a batch, is batched with the rests of the others, so that only the last
    batch can be smaller. Where the transform knows no canvases, all pictures are one group.
    """

    def __init__(self, dataset: CocoDataset, batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self.drop_last = False
        self.seed, self.epoch = seed, 0
        sizes = (picture.size for picture in dataset.annotations.pictures)
        self._canvases = [dataset.transform.canvases(size) for size in sizes]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return ceil(len(self._canvases) / self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
        batches = self._deal(torch.randperm(len(self._canvases), generator=generator).tolist())
        smaller = batches.pop() if len(batches[-1]) < self.batch_size else None
        batches = [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]
        if smaller:
            batches.append(smaller)
        for batch in batches:
            choice = int(torch.randint(2**31, (), generator=generator))
            yield [self._key(index, choice) for index in batch]

    def _deal(self, order: Sequence[int]) -> list[list[int]]:
        """Full batches of one group each, then the rest; the smaller batch, if any, is the last."""
        groups: dict[tuple[ImageSize, ...], list[int]] = defaultdict(list)
        for index in order:
            groups[self._canvases[index]].append(index)
        full, rest = [], []
        for group in groups.values():
            whole = len(group) // self.batch_size * self.batch_size
            full += group[:whole]
            rest += group[whole:]
        dealt = full + rest
        return [dealt[start:start + self.batch_size] for start in range(0, len(dealt), self.batch_size)]

    def _key(self, index: int, choice: int) -> SampleKey:
        canvases = self._canvases[index]
        canvas = canvases[choice % len(canvases)] if canvases else None
        return SampleKey(index, mixed_seed(self.seed, self.epoch, index), canvas)


class Collate:
    """Stacks samples, padded to multiples of `divisor` and at least to the canvases they were fitted into."""

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        batch = ImageBatch.from_images([sample.image for sample in samples], self.divisor)
        canvases = [sample.canvas for sample in samples if sample.canvas is not None]
        height, width = (max(sides) for sides in zip(batch.images.shape[2:], *canvases, strict=True))
        beyond = (0, width - batch.images.shape[3], 0, height - batch.images.shape[2])
        images, padding = F.pad(batch.images, beyond), F.pad(batch.padding, beyond, value=True)
        return ImageBatch(images, padding, batch.sizes), [sample.target for sample in samples]


def mixed_seed(*parts: int) -> int:
    """One seed from several numbers; seeds of neighbouring numbers have nothing in common."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def _by_shape(dataset: CocoDataset, divisor: int) -> list[int]:
    """Picture indices, those of one padded shape together; the largest first, so that memory runs out at once
    or never."""
    def shape(index: int) -> ImageSize:
        height, width = dataset.transform.preprocessing.resized(dataset.annotations.pictures[index].size)
        return -(-height // divisor) * divisor, -(-width // divisor) * divisor

    return sorted(range(len(dataset)), key=lambda index: (*shape(index), -index), reverse=True)
