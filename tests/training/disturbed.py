"""`ddetr train` with something that happens to it, as a program of its own, since some of it ends the process.

    python disturbed.py WHAT DETAIL train DATA ...
"""

import os
import random
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from deformable_detr.cli import main
from deformable_detr.training.step import Step

learn = Step.__call__


def disturb(happening: Callable[[Step, int], None]) -> None:
    """Call `happening` before each step, counted from 0."""
    counter = iter(range(10**9))

    def disturbed(self: Step, batches: Any, seed: int) -> Any:
        happening(self, next(counter))
        return learn(self, batches, seed)

    Step.__call__ = disturbed


def kill(seed: str) -> None:
    """SIGKILL somewhere within the first steps."""
    chance = random.Random(seed)
    last, delay = chance.randint(1, 6), chance.uniform(0, 0.1)
    disturb(lambda _, step: threading.Timer(
        delay, os.kill, (os.getpid(), signal.SIGKILL)).start() if step == last else None)


def fill_disk(step_and_bytes: str) -> None:
    """From a step on no file can grow beyond a size."""
    last, most = map(int, step_and_bytes.split(","))
    disturb(lambda _, step: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)) if step == last else None)


def vanish(rank: str) -> None:
    """One process ends without a word in its third step."""
    disturb(lambda _, step: os._exit(9) if step == 2 and os.environ["RANK"] == rank else None)


def lose_worker(_: str) -> None:
    """The system ends a process that reads images."""
    import multiprocessing

    disturb(lambda _, step: multiprocessing.active_children()[0].kill() if step == 1 else None)


def poison(file_name: str) -> None:
    """The loss of one image is NaN."""
    finite = Step._finite_losses

    def poisoned(self: Step, predictions: Any, targets: Any, *others: Any) -> Any:
        for index, target in enumerate(targets):
            if self.file_name_of(target.image_id) == file_name:
                predictions.boxes.data[0, index] = torch.nan
        return finite(self, predictions, targets, *others)

    Step._finite_losses = poisoned


def overflow(rank: str) -> None:
    """A gradient of one process is infinite, though its loss is not."""
    backward = Step._backward

    def overflowed(self: Step, batches: Any) -> Any:
        if os.environ["RANK"] == rank:
            self.model.module.pyramid.level_embedding.register_hook(lambda gradient: gradient * torch.inf)
        return backward(self, batches)

    Step._backward = overflowed


def whole(gradient: torch.Tensor) -> torch.Tensor:
    """All of a gradient that may be spread over processes."""
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient.clone()


def record(path: str) -> None:
    """Write down the losses of all steps and the gradients of the first."""
    losses, notes = [], {}

    def recorded(self: Step, batches: Any, seed: int) -> Any:
        result = learn(self, batches, seed)
        losses.append(result[0])
        return result

    def gradients(optimizer: Any, *_: Any) -> None:
        if not notes:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            notes.update({str(index): whole(parameter.grad) for index, parameter in enumerate(parameters)})

    Step.__call__ = recorded
    register_optimizer_step_pre_hook(gradients)
    code = main(sys.argv[3:])
    if os.environ.get("RANK", "0") == "0":
        save_file({"losses": torch.tensor(losses, dtype=torch.float64), **notes}, Path(path))
    sys.exit(code)


if __name__ == "__main__":
    happenings = {"kill": kill, "fill-disk": fill_disk, "vanish": vanish, "lose-worker": lose_worker,
                  "poison": poison, "overflow": overflow, "record": record}
    happenings[sys.argv[1]](sys.argv[2])
    sys.exit(main(sys.argv[3:]))
