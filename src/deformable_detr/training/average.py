"""A moving average of the weights, which detects better than the weights of the last step."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that follows it, in evaluation mode."""
    average: Any = averaging(decay)     # torch declares tuples
    return AveragedModel(model, multi_avg_fn=average).eval()


def averaging(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """One step of the average of all tensors, in place; the first steps decay faster, since there is little to average
    yet."""
    def average(old: Sequence[Tensor], new: Sequence[Tensor], num_steps: Tensor | int) -> None:
        kept = min(decay, (1 + float(num_steps)) / (10 + float(num_steps)))
        for average_tensor, tensor in zip(old, new, strict=True):
            average_tensor.lerp_(tensor, 1 - kept)

    return average
