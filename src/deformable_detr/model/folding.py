"""Frozen batch norms folded into the convolutions before them: the same maps, and gradients, with less work."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from deformable_detr.dynamo import dynamo_when_used

with dynamo_when_used():
    from timm.layers.norm_act import FrozenBatchNormAct2d
    from torchvision.ops.misc import FrozenBatchNorm2d

Norm = FrozenBatchNormAct2d | FrozenBatchNorm2d


def fold_batch_norm(net: nn.Module) -> nn.Module:
    """A copy of the network without the frozen batch norms that directly follow a convolution, for inference.

    A norm scales and shifts each channel, which the convolution's weight and bias can do as well. Returns `net` itself
    where the result would differ, since a network may use a convolution's output twice.
    """
    folded = _folded(net)
    if folded is None:
        return net
    # On the CPU `Backbone` convolves with channels last; weights in that order need not be copied for every image.
    on_cpu = next(net.parameters()).device.type == "cpu"
    return folded[0].to(memory_format=torch.channels_last) if on_cpu else folded[0]


class FoldedInTraining:
    """Computes the maps of `net` as if it had been folded; gradients reach the weights of `net` itself.

    What is folded is computed for every call, as training changes the convolutions. Computes what `net` does where the
    result would differ.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self._structure: nn.Module | None = None
        if folded := _folded(net):
            structure, self._pairs = folded
            self._structure = structure.to("meta")      # every call brings all tensors along
            self._names = {name for name, _ in (*structure.named_parameters(), *structure.named_buffers())}

    def __call__(self, images: Tensor) -> list[Tensor]:
        if self._structure is None:
            return self.net(images)
        return functional_call(self._structure, self._tensors(), (images,), strict=True)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {name: tensor for name, tensor in (*self.net.named_parameters(), *self.net.named_buffers())
                   if name in self._names}
        for convolution, norm in self._pairs:
            weight, bias = _folded_weights(self.net.get_submodule(convolution), self.net.get_submodule(norm))
            tensors |= {f"{convolution}.weight": weight, f"{convolution}.bias": bias}
        return tensors


@torch.no_grad()
def _folded(net: nn.Module) -> tuple[nn.Module, list[tuple[str, str]]] | None:
    """A folded copy, and the names of each convolution with its norm; None where the maps would differ."""
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(next(net.parameters()))
    pairs, folded = _pairs(net, image), copy.deepcopy(net)
    for convolution, norm in pairs:
        _fold(folded, convolution, norm)
    for before, after in zip(net(image), folded(image), strict=True):
        if not (after - before).abs().max() <= 1e-4 * before.abs().max():
            return None
    return folded, pairs


def _pairs(net: nn.Module, image: Tensor) -> list[tuple[str, str]]:
    """Each norm with the convolution whose output it takes, found by running an image through the network."""
    made: list[tuple[Tensor, nn.Module]] = []
    pairs: list[tuple[str, str]] = []
    names = {module: name for name, module in net.named_modules()}

    def after_convolution(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        made.append((output, module))

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        pairs.extend((names[convolution], names[module]) for output, convolution in made if output is inputs[0])

    handles = [module.register_forward_hook(after_convolution) if isinstance(module, nn.Conv2d)
               else module.register_forward_pre_hook(before_norm)
               for module in names if isinstance(module, nn.Conv2d | Norm)]
    net(image)
    for handle in handles:
        handle.remove()
    return pairs


def _fold(net: nn.Module, convolution: str, norm: str) -> None:
    """Fold a norm of `net` and leave its activation, if it has one, in its place."""
    module, following = net.get_submodule(convolution), net.get_submodule(norm)
    for name, tensor in zip(("weight", "bias"), _folded_weights(module, following), strict=True):
        setattr(module, name, nn.Parameter(tensor, requires_grad=False))
    with_activation = isinstance(following, FrozenBatchNormAct2d)
    net.set_submodule(norm, nn.Sequential(*following.children()) if with_activation else nn.Identity())


def _folded_weights(convolution: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does the norm's work too."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    epsilon: Any = norm.eps
    scale = norm.get_buffer("weight") * (variance + epsilon).rsqrt()
    before: Any = convolution.bias if convolution.bias is not None else 0
    weight = convolution.get_parameter("weight") * scale[:, None, None, None]
    return weight, norm.get_buffer("bias") + (before - mean) * scale
