"""How fast the multi-scale detector is, looking and learning: `python benchmarks/detector.py`, and `--training`.

Beside it, where they are installed, the same detector of `transformers` with the same weights, and OpenVINO on that one
exported; outputs are compared before anything is timed. The floor is the same convolutions and matrix products alone,
on the inputs that they had. A step of training is forward, matching, losses and backward at batch 1, stem and first
stage frozen as published.
"""

import argparse
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from exported import looking_with_openvino
from measuring import added_peak, cell, timed
from torch import Tensor, nn

from deformable_detr import DeformableDETR, ImageBatch, ModelConfig, Target
from deformable_detr.training import SetLoss
from deformable_detr.weights import to_official

SIZE = (800, 1066)
NUM_OBJECTS = 10
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


def picture() -> Tensor:
    return torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(1))


def build_ours() -> DeformableDETR:
    torch.manual_seed(0)
    model = DeformableDETR(ModelConfig.preset("multi-scale", dropout=0.0)).eval()
    for parameter in model.decoder.heads.parameters():   # which at first say the same of everything
        nn.init.normal_(parameter, std=0.02)
    return model


def build_transformers(ours: DeformableDETR) -> Any:
    """None where it is not installed."""
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


def targets() -> list[Target]:
    generator = torch.Generator().manual_seed(2)
    boxes = torch.rand(NUM_OBJECTS, 4, generator=generator) / 2 + 0.1
    return [Target(torch.randint(91, (NUM_OBJECTS,), generator=generator), boxes)]


def looking(model: DeformableDETR) -> Callable[[], tuple[Tensor, Tensor]]:
    batch = ImageBatch.from_images([picture()])

    def look() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            found = model(batch)
        return found.logits[-1], found.boxes[-1]

    return look


def looking_with_transformers(model: Any) -> Callable[[], tuple[Tensor, Tensor]]:
    pixels, mask = picture()[None], torch.ones(1, *SIZE, dtype=torch.long)

    def look() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            found = model(pixel_values=pixels, pixel_mask=mask)
        return found.logits, found.pred_boxes

    return look


def learning(model: DeformableDETR) -> Callable[[], float]:
    batch, loss = ImageBatch.from_images([picture()]), SetLoss(class_weight=1)   # as `transformers` has it

    def learn() -> float:
        model.zero_grad()
        total = loss(model(batch), targets()).total
        total.backward()
        return total.item()

    return learn


def learning_with_transformers(model: Any) -> Callable[[], float]:
    model.config.auxiliary_loss = True
    pixels, mask = picture()[None], torch.ones(1, *SIZE, dtype=torch.long)
    labels = [{"class_labels": target.labels, "boxes": target.boxes} for target in targets()]

    def learn() -> float:
        model.zero_grad()
        total = model(pixel_values=pixels, pixel_mask=mask, labels=labels).loss
        total.backward()
        return total.item()

    return learn


def floor(model: DeformableDETR, *, backward: bool) -> Callable[[], None]:
    """The convolutions and matrix products alone; with `backward` theirs too."""
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((module, inputs[0].detach().clone(), torch.ones_like(output)))

    parts = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    handles = [part.register_forward_hook(note) for part in parts]
    with torch.no_grad():
        model(ImageBatch.from_images([picture()]))
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


def cases(training: bool) -> dict[str, Callable[[], object]]:
    ours = build_ours()
    theirs = build_transformers(ours)
    floor_of = floor(ours, backward=training)
    if training:
        ours.train()
        found: dict[str, Callable[[], object]] = {"deformable_detr": learning(ours)}
        if theirs is not None:
            found["transformers"] = learning_with_transformers(theirs.train())
    else:
        ours.backbone.fold_batch_norm()   # as `Detector` does
        found = {"deformable_detr": looking(ours)}
        if theirs is not None:
            found["transformers"] = looking_with_transformers(theirs)
            through_openvino = looking_with_openvino(theirs, picture())
            if through_openvino:
                found["OpenVINO"] = through_openvino
    return {**found, "floor": floor_of}


def compare(results: dict[str, Any], training: bool) -> None:
    """Print how far the others' results are from ours."""
    ours = results["deformable_detr"]
    for name in results.keys() - {"deformable_detr", "floor"}:
        if training:
            print(f"{name}: the loss differs by {abs(ours / results[name] - 1):.1e} of it")
        else:
            logits, boxes = (f"{(one - other).abs().max():.1e}" for one, other in zip(ours, results[name], strict=True))
            print(f"{name}: logits differ by {logits}, boxes by {boxes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    everything = cases(options.training)
    if options.peak:
        case = everything[options.peak]
        case()
        print(added_peak(case))
        return
    results: dict[str, Any] = {name: case() for name, case in everything.items()}
    compare(results, options.training)
    times = timed(everything, options.repeats)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {SIZE[0]} x {SIZE[1]}, float32\n")
    print("| | ms: median (minimum) | times ours | MiB added at the peak |\n|---|---|---|---|")
    flags = ["--training"] if options.training else []
    for name in times:
        peak = ""
        if name != "floor":
            peak = subprocess.run([sys.executable, __file__, *flags, "--peak", name], check=True, capture_output=True,
                                  text=True).stdout.split()[-1]
            peak = f"{float(peak):.0f}"
        print(f"| {name} | {cell(times[name], times['deformable_detr'])} | {peak} |", flush=True)
    ratio = statistics.median(times["deformable_detr"]) / statistics.median(times["floor"])
    print(f"\nours is {ratio:.2f} times the floor")


if __name__ == "__main__":
    main()
