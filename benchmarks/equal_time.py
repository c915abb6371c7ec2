"""`ddetr train` for a number of minutes: a trial says what an epoch takes, and how many fill the time."""

import csv
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """A training that has ended; `last` is the last row of its metrics."""

    epochs: int
    trial_seconds: int
    seconds: int
    last: dict[str, str]

    @property
    def minutes(self) -> float:
        """Of the trial and the training together."""
        return (self.trial_seconds + self.seconds) / 60


def train(data: Path, folder: Path, epochs: int, flags: list[str]) -> float:
    """Seconds that `ddetr train` took."""
    command = [sys.executable, "-m", "deformable_detr", "train", str(data), "--epochs", str(epochs), "--out",
               str(folder), *flags]
    start = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - start


def train_for(minutes: float, data: Path, folder: Path, flags: Callable[[int], list[str]]) -> Run:
    """Train into `folder` for `minutes` of wall clock, the trial beside it included; `flags` may depend on the epochs.

    The number of epochs decides when the learning rate falls, so it is found before: by one epoch, and two more.
    """
    trial, trial_flags = folder.with_name(f"{folder.name}-trial"), [*flags(3), "--plain-epochs", "0"]
    first = train(data, trial, 1, trial_flags)
    two_more = train(data, trial, 3, [*trial_flags, "--resume", "--force"])
    epoch = max(two_more - first, 0.1)
    start = max(first - epoch, 0)      # imports, and reading the data
    epochs = max(1, int((60 * minutes - first - two_more - start) / epoch))
    seconds = train(data, folder, epochs, flags(epochs))
    with (folder / "metrics.csv").open() as file:
        *_, last = csv.DictReader(file)
    return Run(epochs, round(first + two_more), round(seconds), last)
