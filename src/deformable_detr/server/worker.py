"""The model in a thread of its own. Images of one shape that wait share a run where that is faster."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from deformable_detr.detect.batches import PROBLEMS, Prepared
from deformable_detr.detect.detector import Detector
from deformable_detr.detections import Detections
from deformable_detr.server.metrics import Metrics

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

WARMING = (480, 640, 3)     # the image of the first run, which compiles kernels
RECENT = 0.1                # weight of the last run in the mean of their times


@dataclass(eq=False)
class _Search:
    """An image to find objects in."""

    image: Prepared
    top_k: int
    answer: "Future[Detections]" = field(default_factory=Future)


@dataclass(eq=False)
class _Call:
    """Anything else that needs the model."""

    call: Callable[[], Any]
    answer: "Future[Any]" = field(default_factory=Future)


class Worker:
    """Runs a detector in one thread, in the order of the calls. An answer that is cancelled is not worked on."""

    def __init__(self, detector: Detector, metrics: Metrics) -> None:
        self.detector, self.metrics = detector, metrics
        self.seconds_each = 0.0     # that an image took of late
        self.is_warm = False
        self._waiting: deque[_Search | _Call] = deque()
        self._changed = threading.Condition()
        self._is_ending = False
        self._thread = threading.Thread(target=self._work, name="deformable-detr-model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """End once all that waits is done."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join()

    def search(self, image: Prepared, top_k: int) -> "Future[Detections]":
        """The `top_k` best detections, whatever their scores."""
        return self._add(_Search(image, top_k)).answer

    def call(self, function: Callable[[], Answer]) -> "Future[Answer]":
        """What a function returns that is called in the model's thread."""
        return self._add(_Call(function)).answer

    def _add(self, job: Any) -> Any:
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return job

    def _work(self) -> None:
        self._warm()
        while jobs := self._next():
            if isinstance(jobs[0], _Call):
                _fulfil(jobs[0].answer, jobs[0].call)
            else:
                self._run([job for job in jobs if isinstance(job, _Search)])

    def _warm(self) -> None:
        try:
            image = self.detector.prepare(np.zeros(WARMING, dtype=np.uint8))
            for _ in range(2):      # the second gives the time without compilation
                start = time.perf_counter()
                self.detector.run([image], 0, 1)
                self.seconds_each = time.perf_counter() - start
            self.is_warm = True
        except Exception:
            logger.exception("the model cannot run")

    def _next(self) -> list[_Search | _Call]:
        """The job that is next, with others that can share its run; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ending)
            if not self._waiting:
                return []
            first = self._waiting.popleft()
            if isinstance(first, _Call):
                return [first]
            shape = first.image.shape
            room = self.detector.batch_size_of(shape) - 1
            others = [job for job in self._waiting if isinstance(job, _Search) and job.image.shape == shape][:room]
            for job in others:
                self._waiting.remove(job)
            return [first, *others]

    def _run(self, jobs: list[_Search]) -> None:
        """Give each job its answer. If a batch fails, its images run one by one."""
        jobs = [job for job in jobs if job.answer.running() or job.answer.set_running_or_notify_cancel()]
        if not jobs:
            return
        start = time.perf_counter()
        try:
            found = self.detector.run([job.image for job in jobs], 0, max(job.top_k for job in jobs))
        except Exception as error:
            self._answer_failed(jobs, error)
            return
        self._measure(time.perf_counter() - start, len(jobs))
        for job, detections in zip(jobs, found, strict=True):
            job.answer.set_result(detections[:job.top_k])

    def _answer_failed(self, jobs: list[_Search], error: Exception) -> None:
        if not isinstance(error, PROBLEMS):
            logger.error("a run of the model failed", exc_info=error)
        if len(jobs) == 1:
            jobs[0].answer.set_exception(error)
        else:
            for job in jobs:
                self._run([job])

    def _measure(self, seconds: float, images: int) -> None:
        self.metrics.model_seconds.observe(seconds)
        self.metrics.batch_images.observe(images)
        self.seconds_each += RECENT * (seconds / images - self.seconds_each)


def _fulfil(answer: "Future[Any]", call: Callable[[], Any]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(call())
    except Exception as error:
        answer.set_exception(error)
