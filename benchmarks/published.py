"""The detectors of the benchmarks, and the same of `transformers` with the same weights."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deformable_detr import ImageBatch, ModelConfig, build_model
from deformable_detr.model.network import Network
from deformable_detr.papers import Config
from deformable_detr.weights import to_official

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.huggingface import in_names_of_transformers as dense_names

SIZE = (800, 1066)
RENAMED = {
    r"^backbone\.0\.body\.": "model.backbone.model.",
    r"^(input_proj|transformer\.(level_embed|reference_points|enc_output|pos_trans))": r"model.\1",
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


def build_ours(preset: str = "multi-scale", **changes: Any) -> Network:
    torch.manual_seed(0)
    model = build_model(ModelConfig.preset(preset, dropout=0.0, **changes)).eval()
    for parameter in model.decoder.heads.parameters():   # which at first say the same of everything
        nn.init.normal_(parameter, std=0.02)
    return model


def build_transformers(ours: Network) -> Any:
    """None where it is not installed. Stem and first stage are frozen as published."""
    try:
        theirs = build_of_paper(ours.config).eval()
    except ImportError:
        return None
    official, paper = to_official(ours.state_dict(), ours.config), ours.config.paper
    state = dense_names(official, paper) if paper in ("detr", "dab-detr") else in_names_of_transformers(official)
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    left = [name for name in (*missing, *unexpected) if "num_batches_tracked" not in name]
    if left:
        raise SystemExit(f"transformers: other names than expected: {left[:5]}")
    frozen = re.compile(r"model\.backbone\..*\b(conv1|layer1)\.|bn|downsample\.1")
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_(not frozen.search(name))
    return theirs


def build_of_paper(config: Config) -> Any:
    """Raises ImportError where `transformers` is not installed."""
    import transformers

    sizes = {"num_labels": config.num_classes, "dropout": 0.0}
    if config.paper == "detr":
        return transformers.DetrForObjectDetection(transformers.DetrConfig(**sizes, num_queries=config.num_queries))
    if config.paper == "dab-detr":
        return transformers.DabDetrForObjectDetection(
            transformers.DabDetrConfig(**sizes, num_queries=config.num_queries))
    two_stage = getattr(config, "two_stage", False)
    return transformers.DeformableDetrForObjectDetection(transformers.DeformableDetrConfig(
        **sizes, encoder_ffn_dim=config.ffn_width, decoder_ffn_dim=config.ffn_width, num_queries=config.num_queries,
        two_stage=two_stage, with_box_refine=getattr(config, "refine", False),
        two_stage_num_proposals=config.num_queries))


def floor(model: Network, *, backward: bool) -> Callable[[], None]:
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
