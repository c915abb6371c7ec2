"""Batch norms folded into convolutions: the same maps and gradients; what cannot be folded stays as it is."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from timm.layers.norm_act import FrozenBatchNormAct2d, freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from deformable_detr.model.folding import FoldedInTraining, fold_batch_norm
from deformable_detr.structures import ImageBatch
from helpers.models import small_model

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


NETWORKS = ("resnet18", "tf_efficientnet_lite0", "test_efficientnet", "mobilenetv3_small_050")


@pytest.mark.parametrize("name", NETWORKS)
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


def maps_and_gradients(run: Callable[[Tensor], list[Tensor]], net: nn.Module, image: Tensor) -> list[Tensor]:
    """In float64, where rounding cannot hide a difference."""
    net.zero_grad()
    maps = run(image.double())
    torch.stack([values.square().mean() for values in maps]).sum().backward()
    gradients = [parameter.grad for parameter in net.parameters() if parameter.requires_grad]
    assert gradients
    return [*maps, *(gradient for gradient in gradients if gradient is not None)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_gets_the_same_maps_and_gradients(name: str, layout: torch.memory_format) -> None:
    net = random_norms(timm.create_model(name, features_only=True)).double()
    next(net.parameters()).requires_grad_(False)    # as the stem
    folded, image = FoldedInTraining(net), IMAGE.contiguous(memory_format=layout)
    for _ in range(2):
        for before, after in zip(maps_and_gradients(net, net, image), maps_and_gradients(folded, net, image),
                                 strict=True):
            torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-9 * before.abs().max().item())
        with torch.no_grad():   # a step, which the next call sees
            for parameter in net.parameters():
                parameter.mul_(1.1)


def test_training_leaves_what_cannot_be_folded_as_it_is() -> None:
    net = random_norms(Twice())
    for before, after in zip(net(IMAGE), FoldedInTraining(net)(IMAGE), strict=True):
        assert torch.equal(before, after)


def test_a_backbone_that_is_folded_in_training_keeps_its_tensors_and_answers() -> None:
    model, batch = small_model("two-stage"), ImageBatch.from_images([IMAGE[0], IMAGE[1]])
    names, before = list(model.state_dict()), model.train()(batch)
    model.backbone.fold_in_training()
    for trained in (model, copy.deepcopy(model)):
        after = trained(batch)
        torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(after.boxes, before.boxes, rtol=1e-4, atol=1e-5)
        assert list(trained.state_dict()) == names
