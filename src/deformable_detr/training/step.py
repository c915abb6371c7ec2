"""One step of the optimizer, however little memory there is and however many processes share the work."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import inf
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from deformable_detr.criterion.class_losses import Counts
from deformable_detr.criterion.denoising import Denoising
from deformable_detr.criterion.losses import SetLoss, count_step
from deformable_detr.criterion.matching import NonFiniteError
from deformable_detr.loading.loader import Batch
from deformable_detr.structures import Predictions, Target, to_device

logger = logging.getLogger(__name__)

MAX_SKIPPED = 20    # steps in a row: fp16's loss scaling halves its factor, at first 65536, in each
MAX_NAMED = 8       # images in an error

Culprit = tuple[str, int | str | None]   # what is not finite, and for which image


class Step:
    """Learns from the batches that make a step, and returns the losses.

    All losses of a step are divided by its size, over all batches and processes, so that it does not matter how its
    images are divided among them. A batch that does not fit into a GPU's memory is processed in halves.
    `draw_noise` makes the noisy boxes that are added as queries; `file_name_of` maps an image's id to its file.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module, optimizer: Any, loss: SetLoss, clip_norm: float,
                 most_at_once: int, file_name_of: Callable[[int], str | None],
                 draw_noise: Callable[[list[Target]], Denoising | None] = lambda _: None) -> None:
        self.accelerator, self.model, self.optimizer, self.loss = accelerator, model, optimizer, loss
        self.clip_norm, self.most_at_once, self.file_name_of = clip_norm, most_at_once, file_name_of
        self.draw_noise = draw_noise
        self.num_skipped = 0    # the last steps, as their gradients overflowed float16

    def __call__(self, batches: Sequence[Batch], seed: int) -> tuple[float, dict[str, float]]:
        """The weighted loss and its parts, over all processes, before the step; random numbers follow from `seed`.

        Raises NonFiniteError in every process, before the weights change, if a loss or the gradient is not finite in
        one; it names the image, or those of the step.
        """
        losses = self._gradients(batches, seed)
        self._check_gradients(self._clip(), batches)
        self.optimizer.step()
        total, *parts = self._over_all(torch.stack(list(losses.values())), "mean").tolist()
        return total, dict(zip(list(losses)[1:], parts, strict=True))

    def _gradients(self, batches: Sequence[Batch], seed: int) -> dict[str, Tensor]:
        """Compute gradients and losses, with fewer images at once where memory runs out."""
        while True:
            torch.manual_seed(seed)
            self.optimizer.zero_grad()
            try:
                return self._backward(batches)
            except torch.OutOfMemoryError:
                # Other processes may already be waiting for this one's gradients: no second try there.
                if self.most_at_once == 1 or self.accelerator.num_processes > 1:
                    raise
            self.most_at_once = -(-self.most_at_once // 2)
            logger.warning("out of memory: processing %d images at a time from here on", self.most_at_once)

    def _clip(self) -> Tensor:
        """Clip the gradient, if asked for; its norm before."""
        norm: Any = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip_norm or inf)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _check_gradients(self, norm: Tensor, batches: Sequence[Batch]) -> None:
        """Raise NonFiniteError before the optimizer spoils the weights; with fp16 it skips such steps by itself."""
        if norm.isfinite():
            self.num_skipped = 0
            return
        self.num_skipped += 1
        if self.accelerator.scaler and self.num_skipped <= MAX_SKIPPED:
            logger.info("the gradient overflowed float16: this step is skipped, with a smaller loss scale from here on")
            return
        ids = [target.image_id for _, targets in batches for target in targets]
        every = ids if self.accelerator.num_processes == 1 else gather_object(ids)
        named = ", ".join(repr(self._file_name(image_id)) for image_id in every[:MAX_NAMED])
        raise NonFiniteError(f"the gradient of a step with the images {named}"
                             f"{', ...' if len(every) > MAX_NAMED else ''}")

    def _over_all(self, values: Tensor, reduction: str) -> Tensor:
        """Sum or mean over all processes."""
        reduced: Any = self.accelerator.reduce(values, reduction)
        return reduced

    def _backward(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Gradients of the whole step; its losses by name, `total` first."""
        counts = count_step([target for _, targets in batches for target in targets], self.accelerator.device)
        pieces = [piece for batch in batches for piece in split(batch, self.most_at_once)]
        sums: dict[str, Tensor] = {}
        for index, (images, targets) in enumerate(pieces):
            last = index == len(pieces) - 1
            noise = self.draw_noise(targets)
            inputs = [images, noise.queries] if noise else [images]
            with self._gradients_sent(last), self.accelerator.autocast():
                predictions = self.model(*to_device(inputs, self.accelerator.device))
                losses = self._finite_losses(predictions, targets, counts, last, noise)
                self.accelerator.backward(losses["total"])
            sums = {name: sums[name] + value.detach() if sums else value.detach() for name, value in losses.items()}
        return sums

    def _gradients_sent(self, last: bool) -> AbstractContextManager[Any]:
        """Processes add up their gradients once per step, with its last piece."""
        if isinstance(self.model, FSDPModule):   # which Accelerate does not know
            self.model.set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def _finite_losses(self, predictions: Predictions, targets: list[Target], counts: Counts, last: bool,
                       noise: Denoising | None) -> dict[str, Tensor]:
        culprit: Culprit | None = None
        losses: dict[str, Tensor] = {}
        try:
            found = self.loss(predictions, targets, counts, noise)
            losses = {"total": found.total, **found.parts}
            if not found.total.isfinite():
                culprit = "the loss", self._culprit(predictions, targets, noise)
        except NonFiniteError as error:
            culprit = error.what, error.image_id
        if culprit or last:   # once per step in every process
            self._stop_together(culprit)
        return losses

    def _stop_together(self, culprit: Culprit | None) -> None:
        """Raise in all processes what one of them found; otherwise the others would wait for it."""
        named = (culprit[0], self._file_name(culprit[1])) if culprit else None
        found = torch.tensor(float(named is not None), device=self.accelerator.device)
        if self._over_all(found, "sum") > 0:
            every: list[Culprit | None] = [named] if self.accelerator.num_processes == 1 else gather_object([named])
            raise NonFiniteError(*next(entry for entry in every if entry))

    def _culprit(self, predictions: Predictions, targets: list[Target], noise: Denoising | None) -> int | str | None:
        """The first image whose own loss is not finite."""
        one = torch.ones((), device=predictions.logits.device)
        for index, target in enumerate(targets):
            own_noise = noise and noise.image(index)
            if not self.loss(predictions.image(index), [target], Counts(one, one), own_noise).total.isfinite():
                return target.image_id
        return None

    def _file_name(self, image_id: int | str | None) -> int | str | None:
        return (self.file_name_of(image_id) or image_id) if isinstance(image_id, int) else image_id


def split(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in pieces of at most `size` images, which keep their padding."""
    images, targets = batch
    for start in range(0, len(targets), size):
        yield images.part(start, start + size), targets[start:start + size]
