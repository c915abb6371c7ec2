"""What computes the predictions of a detector: its callers need only `run`."""

import copy
import logging
import time
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from deformable_detr.detect.precision import choose_precision, lower
from deformable_detr.memory import one_memory_error
from deformable_detr.model.folding import fold_batch_norm
from deformable_detr.model.half import HALF
from deformable_detr.model.network import Network
from deformable_detr.structures import ImageBatch, Predictions, to_device

logger = logging.getLogger(__name__)

MEASURED_SIDE = 256     # pixels of the square image that is measured


@runtime_checkable
class Runtime(Protocol):
    """Computes the predictions for a batch, which is handed over on `device`."""

    device: torch.device
    precision: str

    def run(self, batch: ImageBatch) -> Predictions:
        """The predictions, on whatever device they were computed."""
        ...


class TorchRuntime:
    """PyTorch, with a private copy of the model in which batch norms are folded into the convolutions.

    The copy shares the memory of all weights with `model`, except the backbone's and those in half precision. So
    training `model` further also changes the copy, but moving `model` to another device or type does not.
    `precision` is "fp32", "bf16" or "fp16"; `compiled` passes the copy through torch.compile. `model` is the copy.
    """

    def __init__(self, model: Network, precision: str = "fp32", compiled: bool = False) -> None:
        self.device = next(model.parameters()).device
        self.precision = precision
        shared: dict[int, Tensor] = {id(tensor): nn.Parameter(tensor.detach(), requires_grad=False)
                                     for tensor in model.parameters()}
        shared |= {id(tensor): tensor.detach() for tensor in model.buffers()}
        self.model = copy.deepcopy(model, shared).eval()
        self.model.backbone.net = fold_batch_norm(self.model.backbone.net)
        if precision in HALF:
            lower(self.model, HALF[precision])
        self._forward: Any = self.model
        if compiled:
            logger.info("compile: the first images take minutes, and so does each new shape until one kernel fits all")
            self._forward = torch.compile(self.model)

    def run(self, batch: ImageBatch) -> Predictions:
        """The predictions, on the model's device. Raises MemoryError if there is not enough memory."""
        return self._run(self._forward, batch)

    def run_watched(self, batch: ImageBatch) -> Predictions:
        """As `run`, but never compiled, so that hooks of `model` are called."""
        return self._run(self.model, batch)

    @torch.inference_mode()
    def _run(self, forward: Any, batch: ImageBatch) -> Predictions:
        with one_memory_error():
            return forward(to_device(batch, self.device))


def torch_runtime(model: Network, precision: str, compiled: bool = False) -> TorchRuntime:
    """A runtime in this precision, or for "auto" in the one that is faster."""
    if precision != "auto":
        return TorchRuntime(model, precision, compiled)
    image = ImageBatch.from_images([torch.zeros(3, MEASURED_SIDE, MEASURED_SIDE)])

    @cache
    def warm(precision: str) -> TorchRuntime:
        runtime = TorchRuntime(model, precision)
        runtime.run(image)
        return runtime

    def seconds(precision: str) -> float:
        runtime = warm(precision)
        start = time.perf_counter()
        runtime.run(image)
        return time.perf_counter() - start

    return TorchRuntime(model, choose_precision(next(model.parameters()).device, seconds), compiled)
