"""ImageBatch -> feature maps C3, C4, C5: a timm network with frozen batch norms."""

from typing import Any

import torch
from torch import nn

from deformable_detr.dynamo import dynamo_when_used
from deformable_detr.model.folding import FoldedInTraining
from deformable_detr.structures import Features, ImageBatch

with dynamo_when_used():
    import timm
    from timm.layers.norm_act import freeze_batch_norm_2d


class Backbone(nn.Module):
    """The last `num_maps` (1 to 4) feature maps of a timm model, finest first.

    `channels` holds the number of channels of each. Raises ValueError for a model that timm does not know or cannot
    build, or whose last maps do not have strides 8, 16 and 32 (16 instead of 32 with `dilation`, the paper's DC5).
    """

    def __init__(self, name: str, num_maps: int = 3, dilation: bool = False, pretrained: bool = False) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise ValueError(f"backbone: timm has no model named {name!r}")
        stride: dict[str, Any] = {"output_stride": 16} if dilation else {}
        try:
            net: Any = timm.create_model(name, features_only=True, pretrained=pretrained, **stride)
        except (RuntimeError, TypeError) as error:   # an unknown tag, or a network whose stride is fixed
            if pretrained:                           # or no network
                raise
            raise ValueError(f"backbone: timm cannot build {name!r}{' with dilation' if dilation else ''} "
                             f"({error})") from error
        expected = [4, 8, 16, 16 if dilation else 32][-max(num_maps, 3):]
        strides = net.feature_info.reduction()[-len(expected):]
        if strides != expected:
            raise ValueError(f"backbone: {name!r} has feature maps at strides {strides}, expected {expected}")
        self.channels: list[int] = net.feature_info.channels()[-num_maps:]
        self.num_maps = num_maps
        self.channels_last = str(getattr(net, "output_fmt", "")).endswith("NHWC")   # Swin and the like
        early_stages = [info["module"] for info in net.feature_info.info if info["reduction"] <= 4]
        self.net: nn.Module = freeze_batch_norm_2d(net)
        self._with_gradients: FoldedInTraining | None = None
        freeze_until(self.net, early_stages[-1:])

    def fold_in_training(self) -> None:
        """From now on compute gradients with the batch norms folded into the convolutions, which takes less time."""
        self._with_gradients = FoldedInTraining(self.net)

    def forward(self, batch: ImageBatch) -> Features:
        images = batch.images.to(next(self.net.parameters()).dtype)   # `model.half()` converts weights only
        # oneDNN convolves faster with channels last, and each pixel is then a token; but its backward pass is slower
        # where vectors have 256 bits.
        if images.device.type == "cpu" and (not torch.is_grad_enabled() or has_long_vectors()):
            images = images.contiguous(memory_format=torch.channels_last)
        net = self._with_gradients if self._with_gradients and torch.is_grad_enabled() else self.net
        maps = net(images)[-self.num_maps:]
        if self.channels_last:
            maps = [values.permute(0, 3, 1, 2) for values in maps]
        return Features(tuple(maps), batch.padding, batch.is_padded)


def has_long_vectors() -> bool:
    """Whether this processor's vectors have 512 bits."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def freeze_until(net: nn.Module, stages: list[str]) -> None:
    """Freeze every parameter up to the end of the last of `stages`, in the order of the network.

    The published detector freezes the stem and the first stage, which ends at stride 4. Stages have timm's names; its
    flattened networks write `stages.0` as `stages_0`.
    """
    prefixes = tuple(f"{name}." for stage in stages for name in (stage, stage.replace(".", "_")))
    names = [name for name, _ in net.named_parameters()]
    inside = [index for index, name in enumerate(names) if name.startswith(prefixes)]
    for name in names[: max(inside, default=-1) + 1]:
        net.get_parameter(name).requires_grad_(False)
