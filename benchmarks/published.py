"""The multi-scale detector of the benchmarks, and the same of `transformers` with the same weights."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deformable_detr import DeformableDETR, ImageBatch, ModelConfig
from deformable_detr.weights import to_official

SIZE = (800, 1066)
RENAMED = {
    r"^backbone\.0\.body\.": "model.backbone.model.",
    r"^(input_proj|transformer\.level_embed|transformer\.reference_points)": r"model.\1",
    r"^query_embed\.": "model.query_position_embeddings.",
    r"transformer\.(encoder|decoder)": r"model.\1",
    r"model\.transformer\.": "model.",
    r"(encoder\.layers\.\d+)\.norm1\.": r"\1.self_attn_layer_norm.",
    r"(encoder\.layers\.\d+)\.norm2\.": r"\1.final_layer_norm.",
    r"(decoder\.layers\.\d+)\.norm1\.": r"\1.encoder_attn_layer_norm.",
    r"(decoder\.layers\.\d+)\.norm2\.": r"\1.self_attn_layer_norm.",
    r"(decoder\.layers\.\d+)\.norm3\.": r"\1.final_layer_norm.",
    r"\.linear([12])\.": r".mlp.fc\1.",
    r"\.cross_attn\.": ".encoder_attn.",
    r"\.out_proj\.": ".o_proj.",
}


def in_names_of_transformers(official: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for name, tensor in official.items():
        for pattern, replacement in RENAMED.items():
            name = re.sub(pattern, replacement, name)
        if "in_proj_" in name:
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("in_proj_", f"{part}_proj.")] = chunk
        else:
            state[name] = tensor
    return state


def image() -> Tensor:
    return torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(1))


def build_ours() -> DeformableDETR:
    torch.manual_seed(0)
    model = DeformableDETR(ModelConfig.preset("multi-scale", dropout=0.0)).eval()
    for parameter in model.decoder.heads.parameters():   # which at first say the same of everything
        nn.init.normal_(parameter, std=0.02)
    return model


def build_transformers(ours: DeformableDETR) -> Any:
    """None where it is not installed. Stem and first stage are frozen as published."""
    try:
        from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection
    except ImportError:
        return None
    theirs = DeformableDetrForObjectDetection(DeformableDetrConfig(num_labels=91, dropout=0.0)).eval()
    missing, unexpected = theirs.load_state_dict(in_names_of_transformers(to_official(ours.state_dict())), strict=False)
    left = [name for name in (*missing, *unexpected) if "num_batches_tracked" not in name]
    if left:
        raise SystemExit(f"transformers: other names than expected: {left[:5]}")
    frozen = re.compile(r"model\.backbone\.model\.(conv1|layer1)|bn|downsample\.1")
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_(not frozen.search(name))
    return theirs


def floor(model: DeformableDETR, *, backward: bool) -> Callable[[], None]:
    """The convolutions and matrix products alone; with `backward` theirs too."""
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((module, inputs[0].detach().clone(), torch.ones_like(output)))

    parts = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    handles = [part.register_forward_hook(note) for part in parts]
    with torch.no_grad():
        model(ImageBatch.from_images([image()]))
    for handle in handles:
        handle.remove()
    if backward:
        first = next(part for part in parts if any(value.requires_grad for value in part.parameters()))
        learned = False
        for module, inputs, _ in calls:   # what lies before the first learned layer needs no gradient
            inputs.requires_grad_(learned)
            learned = learned or module is first

    def run() -> None:
        for module, inputs, gradient in calls:
            with torch.set_grad_enabled(backward):
                output = module(inputs)
            if output.requires_grad:
                output.backward(gradient)
        model.zero_grad()

    return run
