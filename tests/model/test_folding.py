"""Batch norms folded into convolutions: the same maps, and a network that cannot be folded stays as it is."""

import pytest
import timm
import torch
from timm.layers.norm_act import FrozenBatchNormAct2d, freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from deformable_detr.model.folding import fold_batch_norm

IMAGE = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))


def norms(net: nn.Module) -> int:
    return sum(isinstance(module, FrozenBatchNorm2d | FrozenBatchNormAct2d) for module in net.modules())


def random_norms(net: nn.Module) -> nn.Module:
    """As training leaves them, unlike those of a new network."""
    generator = torch.Generator().manual_seed(2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(module, name).data.uniform_(0.5, 1.5, generator=generator)
    return freeze_batch_norm_2d(net.eval())


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "test_efficientnet", "mobilenetv3_small_050"])
@torch.no_grad()
def test_the_maps_stay_the_same(name: str) -> None:
    net = random_norms(timm.create_model(name, features_only=True))
    folded = fold_batch_norm(net)
    assert norms(net) > 10
    assert norms(folded) == 0
    for before, after in zip(net(IMAGE), folded(IMAGE), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * before.abs().max().item())


class Twice(nn.Module):
    """Uses a convolution's output with and without the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, image: Tensor) -> list[Tensor]:
        values = self.convolution(image)
        return [values + self.norm(values)]


@torch.no_grad()
def test_what_cannot_be_folded_stays_as_it_is() -> None:
    net = random_norms(Twice())
    assert fold_batch_norm(net) is net
