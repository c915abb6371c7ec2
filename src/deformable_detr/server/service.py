"""From the bytes of an image to what a client gets: decoded, searched, drawn and explained beside the event loop."""

import asyncio
import io
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from starlette.exceptions import HTTPException

from deformable_detr.detect.batches import PROBLEMS, Pixels, Prepared, Problem
from deformable_detr.detect.detector import Detector
from deformable_detr.detections import Detections
from deformable_detr.images import ImageError, open_image, read_image
from deformable_detr.server.limits import Limits
from deformable_detr.server.metrics import Metrics
from deformable_detr.server.worker import Worker

Answer = TypeVar("Answer")

READERS = 2     # threads that decode and draw: each holds an image


@dataclass(frozen=True)
class Upload:
    """An image file as a client sent it. Its name is only shown."""

    name: str
    content: bytes


class Explained(NamedTuple):
    page: bytes
    queries: list[int]      # of each detection


class Service:
    """A detector with bounds, for the functions of an event loop."""

    def __init__(self, detector: Detector, limits: Limits, metrics: Metrics) -> None:
        self.detector, self.limits, self.metrics = detector, limits, metrics
        self.worker = Worker(detector, metrics)
        self.waiting = 0        # images
        self.is_ending = False
        self._readers = ThreadPoolExecutor(READERS, "deformable-detr-reader")

    def start(self) -> None:
        self.worker.start()

    def stop(self) -> None:
        self._readers.shutdown(cancel_futures=True)
        self.worker.stop()

    @property
    def is_ready(self) -> bool:
        return self.worker.is_warm and self.worker.is_alive and not self.is_ending

    @contextmanager
    def admitted(self, images: int) -> Iterator[None]:
        """Room for this many images; 503 where there is none, or where it would come too late."""
        expected = (self.waiting + images) * self.worker.seconds_each
        is_late = self.waiting > 0 and expected > self.limits.seconds
        if self.waiting + images > self.limits.queue or is_late:
            after = max(1, math.ceil(self.waiting * self.worker.seconds_each))
            raise HTTPException(503, f"too many images are waiting ({self.waiting}); try again in {after} s",
                                {"Retry-After": str(after)})
        self.waiting += images
        try:
            yield
        finally:
            self.waiting -= images

    async def detect(self, uploads: Sequence[Upload], threshold: float, top_k: int) -> list[Detections | Problem]:
        """The detections in each image, or why there are none."""
        return await asyncio.gather(*(self._detect(upload, threshold, top_k) for upload in uploads))

    async def _detect(self, upload: Upload, threshold: float, top_k: int) -> Detections | Problem:
        try:
            image = await self.read(lambda: self._prepared(upload))
            found = await asyncio.wrap_future(self.worker.search(image, top_k))
        except PROBLEMS as problem:
            self.metrics.images.labels("failed").inc()
            return problem
        self.metrics.images.labels("found").inc()
        return found.above(threshold)

    async def draw(self, upload: Upload, detections: Detections, kind: str) -> bytes:
        """The image with its detections, as "JPEG" or "PNG"."""
        return await self.read(lambda: _drawn(self._pixels(upload), detections, kind))

    async def explain(self, upload: Upload, threshold: float, top_k: int) -> Explained:
        """The page of `ddetr explain`. Raises ImageError, another ValueError or MemoryError."""
        pixels = await self.read(lambda: self._pixels(upload))
        return await asyncio.wrap_future(
            self.worker.call(lambda: _explained(self.detector, pixels, upload.name, threshold, top_k)))

    async def read(self, function: Callable[[], Answer]) -> Answer:
        """What a function returns that is called in a thread for images."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, function)

    def _prepared(self, upload: Upload) -> Prepared:
        return self.detector.prepare(self._pixels(upload))

    def _pixels(self, upload: Upload) -> Pixels:
        with open_image(upload.content) as image:
            width, height = image.size
            if width * height > self.limits.pixels:
                raise ImageError(f"more than {self.limits.pixels:,} pixels ({width} x {height})")
        return read_image(upload.content)


def _drawn(pixels: Pixels, detections: Detections, kind: str) -> bytes:
    content = io.BytesIO()
    options = {"quality": 90} if kind == "JPEG" else {"compress_level": 1}
    detections.draw(pixels).save(content, kind, **options)
    return content.getvalue()


def _explained(detector: Detector, pixels: Pixels, name: str, threshold: float, top_k: int) -> Explained:
    from deformable_detr.explain.page import render_explanation

    explanation = replace(detector.explain(pixels, threshold, top_k), name=name)
    return Explained(render_explanation(explanation), explanation.queries.tolist())
