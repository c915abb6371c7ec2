"""TensorFlow's "same" convolutions with sizes that stay short formulas, for backbones that came from there."""

from typing import Any

import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn


def with_short_sizes(net: nn.Module) -> None:
    """Replace timm's "same" convolutions in `net` by ones that compute the same.

    timm writes the padding with `max` and `ceil`. Where sizes are free these pile up from layer to layer, and the
    export would take hours.
    """
    for name, module in list(net.named_modules()):
        if isinstance(module, Conv2dSame):
            convolution: Any = module
            net.set_submodule(name, SameConvolution(convolution))


class SameConvolution(nn.Module):
    """A convolution that has an output for each stride begun; what is missing is padded, the odd pixel at the end."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.settings: dict[str, Any] = {"stride": convolution.stride, "dilation": convolution.dilation,
                                         "groups": convolution.groups}

    def forward(self, maps: Tensor) -> Tensor:
        top, bottom = self._missing(maps.shape[2], 0)
        left, right = self._missing(maps.shape[3], 1)
        return F.conv2d(F.pad(maps, (left, right, top, bottom)), self.weight, self.bias, **self.settings)

    def _missing(self, length: int, axis: int) -> tuple[int, int]:
        """Pixels before and after. No stride is longer than its kernel reaches, so there are never fewer than 0."""
        stride = self.settings["stride"][axis]
        reach = self.settings["dilation"][axis] * (self.weight.shape[2 + axis] - 1) + 1
        missing = ((length - 1) // stride) * stride + reach - length
        return missing // 2, missing - missing // 2
