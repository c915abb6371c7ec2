"""What computes the predictions of a detector: its callers need only `run`."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from deformable_detr.model.folding import fold_batch_norm
from deformable_detr.model.network import Network
from deformable_detr.structures import ImageBatch, Predictions, to_device


class Runtime(Protocol):
    """Computes the predictions for a batch."""

    def run(self, batch: ImageBatch) -> Predictions:
        """The predictions, on whatever device they were computed."""
        ...


class TorchRuntime:
    """PyTorch, with a private copy of the model in which batch norms are folded into the convolutions.

    The copy shares the memory of all weights with `model`, except the backbone's. So training `model` further also
    changes the copy, but moving `model` to another device or type does not. The attribute `model` is the copy.
    """

    def __init__(self, model: Network) -> None:
        self.device = next(model.parameters()).device
        shared: dict[int, Tensor] = {id(tensor): nn.Parameter(tensor.detach(), requires_grad=False)
                                     for tensor in model.parameters()}
        shared |= {id(tensor): tensor.detach() for tensor in model.buffers()}
        self.model = copy.deepcopy(model, shared).eval()
        self.model.backbone.net = fold_batch_norm(self.model.backbone.net)

    @torch.inference_mode()
    def run(self, batch: ImageBatch) -> Predictions:
        """The predictions, on the model's device. Raises MemoryError if there is not enough memory."""
        with one_memory_error():
            return self.model(to_device(batch, self.device))


@contextmanager
def one_memory_error() -> Iterator[None]:
    """MemoryError for whatever PyTorch raises if memory runs out; on the CPU it has no error of its own for that."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise MemoryError("out of memory; a smaller size of the preprocessing needs less") from error
        raise
    except MemoryError as error:
        raise MemoryError("out of memory; a smaller size of the preprocessing needs less") from error
