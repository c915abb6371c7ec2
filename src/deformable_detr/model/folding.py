"""Frozen batch norms folded into the convolutions before them: the same maps with less work, for inference only."""

import copy
from typing import Any

import torch
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

Norm = FrozenBatchNormAct2d | FrozenBatchNorm2d


@torch.no_grad()
def fold_batch_norm(net: nn.Module) -> nn.Module:
    """A copy of the network without the frozen batch norms that directly follow a convolution.

    A norm scales and shifts each channel, which the convolution's weight and bias can do as well. Returns `net` itself
    where the result would differ, since a network may use a convolution's output twice.
    """
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(next(net.parameters()).device)
    folded = copy.deepcopy(net)
    for convolution, norm in _pairs(folded, image):
        _fold(folded, convolution, norm)
    for before, after in zip(net(image), folded(image), strict=True):
        if not (after - before).abs().max() <= 1e-4 * before.abs().max():
            return net
    # On the CPU `Backbone` convolves with channels last; weights in that order need not be copied for every image.
    return folded.to(memory_format=torch.channels_last) if image.device.type == "cpu" else folded


def _pairs(net: nn.Module, image: Tensor) -> list[tuple[nn.Conv2d, Norm]]:
    """Each norm with the convolution whose output it takes, found by running an image through the network."""
    made: list[tuple[Tensor, nn.Conv2d]] = []
    pairs: list[tuple[nn.Conv2d, Norm]] = []

    def after_convolution(module: nn.Conv2d, _: tuple[Tensor, ...], output: Tensor) -> None:
        made.append((output, module))

    def before_norm(module: Norm, inputs: tuple[Tensor, ...]) -> None:
        pairs.extend((convolution, module) for output, convolution in made if output is inputs[0])

    handles = [module.register_forward_hook(after_convolution) if isinstance(module, nn.Conv2d)
               else module.register_forward_pre_hook(before_norm)
               for module in net.modules() if isinstance(module, nn.Conv2d | Norm)]
    net(image)
    for handle in handles:
        handle.remove()
    return pairs


def _fold(net: nn.Module, convolution: nn.Conv2d, norm: Norm) -> None:
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    weight, bias = norm.get_buffer("weight"), norm.get_buffer("bias")
    epsilon: Any = norm.eps
    scale = weight * (variance + epsilon).rsqrt()
    before = convolution.bias if convolution.bias is not None else torch.zeros_like(mean)
    convolution.weight.mul_(scale[:, None, None, None])
    convolution.bias = nn.Parameter(bias + (before - mean) * scale, requires_grad=False)
    name = next(name for name, module in net.named_modules() if module is norm)
    with_activation = isinstance(norm, FrozenBatchNormAct2d)
    net.set_submodule(name, nn.Sequential(*norm.children()) if with_activation else nn.Identity())
