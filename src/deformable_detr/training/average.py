"""A moving average of the weights, which detects better than the weights of the last step."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that follows it, in evaluation mode."""
    return AveragedModel(model, avg_fn=averaging(decay)).eval()


def averaging(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """One step of the average of one tensor; the first steps decay faster, since there is little to average yet."""
    def average(old: Tensor, new: Tensor, num_steps: Tensor | int) -> Tensor:
        kept = min(decay, (1 + float(num_steps)) / (10 + float(num_steps)))
        return old.lerp(new, 1 - kept)

    return average
