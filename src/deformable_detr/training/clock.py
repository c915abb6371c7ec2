"""How long a run will still take, from what its steps and evaluations have taken so far."""

import time
from collections.abc import Callable
from datetime import timedelta


class RunClock:
    """Created with the run; its methods are called after every step and every evaluation."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = now()
        self._steps = self._evaluations = 0
        self._step_seconds = self._evaluation_seconds = 0.0

    def restart(self) -> None:
        """What has passed since the last call belongs to neither a step nor an evaluation."""
        self._last = self._now()

    def step_done(self) -> None:
        """A step of the optimizer has ended."""
        self._steps += 1
        self._step_seconds += self._lap()

    def evaluation_done(self) -> None:
        """An evaluation, with the files that are written after it, has ended."""
        self._evaluations += 1
        self._evaluation_seconds += self._lap()

    def left(self, steps: int, evaluations: int) -> timedelta | None:
        """The time for this many more; None before the first step. Evaluations count once one has been made."""
        if not self._steps:
            return None
        seconds = steps * self._step_seconds / self._steps
        if self._evaluations:
            seconds += evaluations * self._evaluation_seconds / self._evaluations
        return timedelta(seconds=round(seconds))

    def _lap(self) -> float:
        last, self._last = self._last, self._now()
        return self._last - last
