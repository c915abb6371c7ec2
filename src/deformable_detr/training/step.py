"""One step of the optimizer, whatever the memory holds and however many processes share the work."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from deformable_detr.criterion.denoising import Denoising, build_denoising
from deformable_detr.criterion.losses import SetLoss, count_boxes
from deformable_detr.criterion.matching import NonFiniteError
from deformable_detr.loading.loader import Batch
from deformable_detr.structures import Predictions, Target, to_device

logger = logging.getLogger(__name__)

Culprit = tuple[str, int | str | None]   # what is not finite, and for which image


class Step:
    """Learns from the batches that make a step, and says what the losses were.

    All losses of a step are divided by its number of objects, over all batches and processes, so that it does not
    matter how its images were dealt out. Where a batch does not fit into a GPU's memory, it is looked at in halves.
    With `denoising_queries` the model is asked about so many noisy boxes an image, which it has to put right.
    `file_name_of` says which file an image's id stands for.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module, optimizer: Any, loss: SetLoss, clip_norm: float,
                 most_at_once: int, file_name_of: Callable[[int], str | None], denoising_queries: int = 0) -> None:
        self.accelerator, self.model, self.optimizer, self.loss = accelerator, model, optimizer, loss
        self.clip_norm, self.most_at_once, self.file_name_of = clip_norm, most_at_once, file_name_of
        self.denoising_queries = denoising_queries

    def __call__(self, batches: Sequence[Batch], seed: int) -> tuple[float, dict[str, float]]:
        """The weighted loss and its parts, over all processes, before the step; chance follows from `seed`.

        Raises NonFiniteError, which names the file, in every process as soon as a loss is not finite in one.
        """
        while True:
            torch.manual_seed(seed)
            self.optimizer.zero_grad()
            try:
                losses = self._backward(batches)
                break
            except torch.OutOfMemoryError:
                # Other processes may already be waiting for this one's gradients: no second try there.
                if self.most_at_once == 1 or self.accelerator.num_processes > 1:
                    raise
            self.most_at_once = -(-self.most_at_once // 2)
            logger.warning("out of memory: looking at %d images at a time from here on", self.most_at_once)
        if self.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        total, *parts = self._over_all(torch.stack(list(losses.values())), "mean").tolist()
        return total, dict(zip(list(losses)[1:], parts, strict=True))

    def _over_all(self, values: Tensor, reduction: str) -> Tensor:
        """Sum or mean over all processes."""
        reduced: Any = self.accelerator.reduce(values, reduction)
        return reduced

    def _backward(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Gradients of the whole step; its losses by name, `total` the first."""
        num_boxes = count_boxes([target for _, targets in batches for target in targets], self.accelerator.device)
        pieces = [piece for batch in batches for piece in split(batch, self.most_at_once)]
        sums: dict[str, Tensor] = {}
        for index, (images, targets) in enumerate(pieces):
            last = index == len(pieces) - 1
            noise = build_denoising(targets, self.denoising_queries) if self.denoising_queries else None
            asked = [images, noise.queries] if noise else [images]
            with self._gradients_sent(last), self.accelerator.autocast():
                predictions = self.model(*to_device(asked, self.accelerator.device))
                losses = self._finite_losses(predictions, targets, num_boxes, last, noise)
                self.accelerator.backward(losses["total"])
            sums = {name: sums[name] + value.detach() if sums else value.detach() for name, value in losses.items()}
        return sums

    def _gradients_sent(self, last: bool) -> AbstractContextManager[Any]:
        """Processes add up their gradients once a step."""
        if isinstance(self.model, FSDPModule):   # of which Accelerate does not know
            self.model.set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def _finite_losses(self, predictions: Predictions, targets: list[Target], num_boxes: Tensor, last: bool,
                       noise: Denoising | None) -> dict[str, Tensor]:
        culprit: Culprit | None = None
        losses: dict[str, Tensor] = {}
        try:
            found = self.loss(predictions, targets, num_boxes, noise)
            losses = {"total": found.total, **found.parts}
            if not found.total.isfinite():
                culprit = "the loss", self._culprit(predictions, targets, noise)
        except NonFiniteError as error:
            culprit = error.what, error.image_id
        if culprit or last:   # once a step in every process
            self._stop_together(culprit)
        return losses

    def _stop_together(self, culprit: Culprit | None) -> None:
        """Raise in all processes what one of them found: alone it would keep the others waiting."""
        named = (culprit[0], self._file_name(culprit[1])) if culprit else None
        found = torch.tensor(float(named is not None), device=self.accelerator.device)
        if self._over_all(found, "sum") > 0:
            every: list[Culprit | None] = [named] if self.accelerator.num_processes == 1 else gather_object([named])
            raise NonFiniteError(*next(entry for entry in every if entry))

    def _culprit(self, predictions: Predictions, targets: list[Target], noise: Denoising | None) -> int | str | None:
        """The first image whose own loss is not finite."""
        one = torch.ones((), device=predictions.logits.device)
        for index, target in enumerate(targets):
            asked = noise and noise.image(index)
            if not self.loss(predictions.image(index), [target], one, asked).total.isfinite():
                return target.image_id
        return None

    def _file_name(self, image_id: int | str | None) -> int | str | None:
        return (self.file_name_of(image_id) or image_id) if isinstance(image_id, int) else image_id


def split(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in pieces of at most `size` images, which keep their padding."""
    images, targets = batch
    for start in range(0, len(targets), size):
        yield images.part(start, start + size), targets[start:start + size]
