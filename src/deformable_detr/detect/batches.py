"""Images from an iterable, decoded in threads and run in batches of one shape; the results come in order.

Only images of one padded shape share a batch, so that no image is padded for another's sake: padding would change what
the backbone sees of it. The images of a batch are looked for in a bounded window.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from deformable_detr.detections import Detections
from deformable_detr.preprocessing import Preprocessing, resize_image
from deformable_detr.structures import ImageSize

LARGEST_BATCH = 16          # that "auto" chooses
CPU_PIXELS = 200_000        # of a batch that "auto" chooses on a CPU: larger ones leave its caches, and are slower
GPU_BYTES = 2_000           # of a GPU's memory for each pixel of such a batch
WINDOW = 4                  # batches among whose images those of one shape are looked for
HELD_BYTES = 128 * 2**20    # of images that wait for their turn
READERS = min(8, max(1, (os.cpu_count() or 1) // 2))      # on a CPU the model itself takes all cores
THREAD_NAME = "deformable-detr-images"

BatchSize = int | Literal["auto"]
Problem = ValueError | MemoryError      # an ImageError is a ValueError
PROBLEMS = (ValueError, MemoryError)
Pixels = UInt8[np.ndarray, "h w 3"]
Read = Callable[[], Pixels]             # called in a thread


class Prepared(NamedTuple):
    """An image as it waits for the model."""

    size: ImageSize         # (height, width) of the image
    pixels: UInt8[Tensor, "3 H W"]      # resized
    shape: ImageSize        # (height, width) after padding
    image: Pixels | None    # for callers that want it back

    @property
    def num_bytes(self) -> int:
        return self.pixels.nbytes + (0 if self.image is None else self.image.nbytes)


class Found(NamedTuple):
    """The detections in an image, or why there are none; and the image, where it was asked for and could be read."""

    result: Detections | Problem
    image: Pixels | None = None


def prepare(image: Pixels, preprocessing: Preprocessing, *, keep_image: bool = False) -> Prepared:
    """What is done for an image in a thread. Normalising is not: PyTorch would start more threads for it."""
    pixels = resize_image(image, preprocessing)
    height, width = (-(-side // preprocessing.divisor) * preprocessing.divisor for side in pixels.shape[1:])
    return Prepared((image.shape[0], image.shape[1]), pixels, (height, width), image if keep_image else None)


def check_batch_size(batch_size: object) -> None:
    """Raise ValueError for anything but "auto" and whole numbers from 1."""
    is_count = isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size >= 1
    if not is_count and batch_size != "auto":
        raise ValueError(f"batch_size: expected 'auto' or a whole number of at least 1, got {batch_size!r}")


def fitting_batch_size(shape: ImageSize, device: torch.device) -> int:
    """How many images of this shape "auto" runs at a time."""
    room = (torch.cuda.get_device_properties(device).total_memory // GPU_BYTES if device.type == "cuda"
            else CPU_PIXELS)
    return max(1, min(LARGEST_BATCH, room // (shape[0] * shape[1])))


def find_in_batches(reads: Iterator[Read], prepare: Callable[[Pixels], Prepared],
                    run: Callable[[Sequence[Prepared]], list[Detections]],
                    batch_size_of: Callable[[ImageSize], int], window_size: int) -> Generator[Found]:
    """What `run` finds in each image, in order; what fails for one image is its result, and the others go on.

    `reads` is iterated in the caller's thread, at most `window_size` images ahead of the results; its elements are
    called in others, which end with the iterator. An exception of `reads` is raised after the results before it.
    """
    pool = ThreadPoolExecutor(READERS, THREAD_NAME)
    try:
        window = _Window(reads, lambda read: pool.submit(lambda: prepare(read())), window_size)
        while window.entries or window.pull():
            _run(window.next_batch(batch_size_of), run)
            yield from window.finished()
        if window.error is not None:
            raise window.error
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(eq=False)
class _Entry:
    """An image between its source and its result."""

    coming: Future[Prepared] | None
    ready: Prepared | None = None
    found: Found | None = None

    def wait(self) -> Prepared | None:
        """The image, once it is ready; None if it never will be, or if it has its result."""
        if self.coming is not None:
            try:
                self.ready = self.coming.result()
            except PROBLEMS as problem:
                self.end(problem)
            self.coming = None
        return self.ready

    def end(self, result: Detections | Problem) -> None:
        """Keep the result, and give the rest up."""
        if not isinstance(result, Detections):
            result.__traceback__ = result.__cause__ = result.__context__ = None     # whose frames hold images
        self.found, self.ready = Found(result, self.ready and self.ready.image), None

    @property
    def num_bytes(self) -> int:
        if self.found is not None:
            return 0 if self.found.image is None else self.found.image.nbytes
        return self.ready.num_bytes if self.ready else 0


class _Window:
    """The images that have been taken from the source and whose results have not been handed out."""

    def __init__(self, reads: Iterator[Read], submit: Callable[[Read], Future[Prepared]], size: int) -> None:
        self.entries: deque[_Entry] = deque()
        self.error: Exception | None = None     # the source's
        self._reads, self._submit, self._size, self._ended = reads, submit, size, False

    def pull(self) -> bool:
        """Start on the next image; False where there is none, or no room for it."""
        is_full = len(self.entries) >= self._size or sum(entry.num_bytes for entry in self.entries) >= HELD_BYTES
        if self._ended or is_full:
            return False
        try:
            read = next(self._reads)
        except StopIteration:
            self._ended = True
        except Exception as error:
            self._ended, self.error = True, error
        else:
            self.entries.append(_Entry(self._submit(read)))
        return not self._ended

    def next_batch(self, batch_size_of: Callable[[ImageSize], int]) -> list[_Entry]:
        """The first image without a result, and later ones of its shape; none if no image could be read."""
        batch: list[_Entry] = []
        size, shape = 1, None
        index = 0
        while len(batch) < size and (index < len(self.entries) or self.pull()):
            entry = self.entries[index]
            self._read_ahead(size)
            index += 1
            prepared = entry.wait()
            if prepared is None:
                continue
            if shape is None:
                shape, size = prepared.shape, batch_size_of(prepared.shape)
            if prepared.shape == shape:
                batch.append(entry)
        self._read_ahead(size)      # while the batch runs
        return batch

    def finished(self) -> Iterator[Found]:
        """The results that are next; their images leave the window."""
        while self.entries and (found := self.entries[0].found):
            self.entries.popleft()
            yield found

    def _read_ahead(self, count: int) -> None:
        while sum(entry.coming is not None for entry in self.entries) < max(count, READERS) and self.pull():
            pass


def _run(batch: Sequence[_Entry], run: Callable[[Sequence[Prepared]], list[Detections]]) -> None:
    """Give each entry its result. If a batch fails, its images run one by one, to find the one that it is due to."""
    prepared = [entry.ready for entry in batch if entry.ready is not None]
    problem = None
    try:
        for entry, detections in zip(batch, run(prepared) if prepared else [], strict=True):
            entry.end(detections)
    except PROBLEMS as error:
        problem = error
    # Outside of the handler, where the failed batch's memory is free again.
    if problem is not None and len(batch) == 1:
        batch[0].end(problem)
    elif problem is not None:
        del problem
        for entry in batch:
            _run([entry], run)
