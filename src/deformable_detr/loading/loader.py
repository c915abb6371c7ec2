"""Batches: which images come together, in which order, padded to which shape.

For every new input shape oneDNN, on a CPU, prepares its kernels, and a compiled model is compiled again. So training
batches come in few shapes. Everything random follows from (seed, epoch, image): it is the same for any number of worker
processes, and any epoch can be repeated.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil, prod

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch.utils.data import DataLoader, Sampler

from deformable_detr.datasets.findings import DataError
from deformable_detr.loading.dataset import DetectionDataset, Sample, SampleKey
from deformable_detr.structures import ImageBatch, ImageSize, Target

Batch = tuple[ImageBatch, list[Target]]


@dataclass(frozen=True)
class Process:
    """One of several processes that share the work."""

    index: int = 0
    count: int = 1


def build_loader(dataset: DetectionDataset, batch_size: int, *, training: bool, seed: int = 0, num_workers: int = 0,
                 accumulate: int = 1, process: Process = Process(), plain_from: int | None = None,
                 even: bool = False, repeats: Int64[np.ndarray, "P"] | None = None) -> "BatchLoader":
    """A loader of (ImageBatch, list[Target]): every image once an epoch, of which a process gets its share.

    In training, order and augmentation are random; `loader.batch_sampler.set_epoch(epoch)` chooses them.
    `accumulate` consecutive batches make a step of the optimizer; the last step of an epoch may be smaller. In
    evaluation, in a fixed order, only images of one shape share a batch: padding changes what a backbone computes, so
    that other images would change an answer. Heights and widths become multiples of the preprocessing's divisor.
    From the epoch `plain_from` on, the transform's plain variant is used. With `even`, every process gets the same
    number of training batches, for which some images may come twice at the end of an epoch. `repeats` says how often
    each image comes in an epoch of training. Raises ValueError for a `batch_size` or `accumulate` below 1.
    """
    for name, value in (("batch_size", batch_size), ("accumulate", accumulate)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    divisor = dataset.transform.preprocessing.divisor
    if training:
        batches = TrainingBatches(dataset, batch_size, seed, accumulate, process, plain_from, even, repeats)
    else:
        batches = evaluation_batches(dataset, batch_size, process)
    return BatchLoader(dataset.samples(), batch_sampler=batches, num_workers=num_workers,
                       collate_fn=Collate(divisor), persistent_workers=num_workers > 0, pin_memory=False)


class BatchLoader(DataLoader[Sample]):
    """PyTorch's loader; raises the DataError of a worker process as it was raised there."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return map(_raised, super().__iter__())


def _raised(batch: Batch | DataError) -> Batch:
    if isinstance(batch, DataError):
        raise batch
    return batch


class TrainingBatches(Sampler[list[SampleKey]]):
    """Shuffled batches. The images of a step of the optimizer do not depend on the number of processes.

    A step's images share one canvas, drawn at random. What is left of each group of images, less than a step, is put
    together with what is left of the others, so that only the last step can be smaller. If the transform has no
    canvases, all images are one group. Each process gets a part of each step, in batches of `batch_size`.
    """

    def __init__(self, dataset: DetectionDataset, batch_size: int, seed: int, accumulate: int = 1,
                 process: Process = Process(), plain_from: int | None = None, even: bool = False,
                 repeats: Int64[np.ndarray, "P"] | None = None) -> None:
        self.batch_size, self.process, self.plain_from, self.even = batch_size, process, plain_from, even
        self.step_size = batch_size * accumulate * process.count
        self.seed, self.epoch, self.first_step = seed, 0, 0
        sizes, self._size_of = dataset.annotations.images.distinct_sizes()
        self._canvases = [dataset.transform.canvases(size) for size in sizes]
        count = len(self._size_of)
        self._images = np.repeat(np.arange(count), 1 if repeats is None else repeats)   # of an epoch's entries

    @property
    def num_steps(self) -> int:
        """Steps of an epoch."""
        return ceil(len(self._images) / self.step_size)

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Choose the order and the augmentation of the next iteration, and its first step."""
        self.epoch, self.first_step = epoch, first_step

    def __len__(self) -> int:
        """Batches of the next iteration."""
        left = len(self._images) - self.first_step * self.step_size
        full, rest = divmod(max(0, left), self.step_size)
        return sum(ceil(len(self._part(range(size))) / self.batch_size)
                   for size in [self.step_size] * full + [rest] * (rest > 0))

    def __iter__(self) -> Iterator[list[SampleKey]]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
        steps = self._deal(torch.randperm(len(self._images), generator=generator).numpy())
        smaller = steps.pop() if len(steps[-1]) < self.step_size else None
        steps = [steps[index] for index in torch.randperm(len(steps), generator=generator).tolist()]
        if smaller:
            steps.append(smaller)
        choices = torch.randint(2**31, (len(steps),), generator=generator).tolist()
        for step, choice in list(zip(steps, choices, strict=True))[self.first_step:]:
            keys = [self._key(entry, choice) for entry in self._part(step)]
            for start in range(0, len(keys), self.batch_size):
                yield keys[start:start + self.batch_size]

    def _part(self, step: Sequence[int]) -> Sequence[int]:
        """This process's part of a step; if there are fewer images than processes, some come twice."""
        count = self.process.count
        shared = ceil(len(step) / count) * count if self.even else max(count, len(step))
        step = list(islice(cycle(step), shared))
        first, end = (shared * index // count for index in (self.process.index, self.process.index + 1))
        return step[first:end]

    def _deal(self, order: Int64[np.ndarray, "entries"]) -> list[list[int]]:
        """Full steps of one group each, then the rest; the smaller step, if any, is the last."""
        groups: dict[tuple[ImageSize, ...], list[int]] = defaultdict(list)
        for entry, size in zip(order.tolist(), self._size_of[self._images[order]].tolist(), strict=True):
            groups[self._canvases[size]].append(entry)
        full, rest = [], []
        for group in groups.values():
            whole = len(group) // self.step_size * self.step_size
            full += group[:whole]
            rest += group[whole:]
        dealt = full + rest
        return [dealt[start:start + self.step_size] for start in range(0, len(dealt), self.step_size)]

    def _key(self, entry: int, choice: int) -> SampleKey:
        index = int(self._images[entry])
        canvases = self._canvases[self._size_of[index]]
        canvas = canvases[choice % len(canvases)] if canvases else None
        plain = self.plain_from is not None and self.epoch >= self.plain_from
        return SampleKey(index, mixed_seed(self.seed, self.epoch, entry), canvas, plain)


class Collate:
    """Stacks samples, padded to multiples of `divisor` and at least to the canvases they were fitted into."""

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor

    def __call__(self, samples: Sequence[Sample] | DataError) -> Batch | DataError:
        if isinstance(samples, DataError):
            return samples
        batch = ImageBatch.from_images([sample.image for sample in samples], self.divisor)
        canvases = [sample.canvas for sample in samples if sample.canvas is not None]
        height, width = (max(sides) for sides in zip(batch.images.shape[2:], *canvases, strict=True))
        beyond = (0, width - batch.images.shape[3], 0, height - batch.images.shape[2])
        images, padding = F.pad(batch.images, beyond), F.pad(batch.padding, beyond, value=True)
        return ImageBatch(images, padding, batch.sizes), [sample.target for sample in samples]


def mixed_seed(*parts: int) -> int:
    """One seed from several numbers; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def evaluation_batches(dataset: DetectionDataset, batch_size: int, process: Process = Process()) -> list[list[int]]:
    """One process's batches of image indices, each of one padded shape.

    The largest come first, so that memory runs out at once or never; each goes to the process with the fewest pixels.
    """
    preprocessing = dataset.transform.preprocessing
    sizes, size_of = dataset.annotations.images.distinct_sizes()
    groups: dict[ImageSize, list[int]] = defaultdict(list)
    for index, size in enumerate(size_of.tolist()):
        height, width = (ceil(side / preprocessing.divisor) for side in preprocessing.resized(sizes[size]))
        groups[height, width].append(index)
    batches = [(prod(shape) * len(part), part) for shape, group in groups.items()
               for part in (group[start:start + batch_size] for start in range(0, len(group), batch_size))]
    shares: list[list[list[int]]] = [[] for _ in range(process.count)]
    pixels = [0] * process.count
    for size, batch in sorted(batches, key=lambda batch: -batch[0]):
        least = pixels.index(min(pixels))
        pixels[least] += size
        shares[least].append(batch)
    return shares[process.index]
