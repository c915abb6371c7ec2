"""How fast a detector is: `python benchmarks/detector.py [--preset detr] [--precision bf16]`, by default multi-scale.

Beside it, where they are installed, the same detector of `transformers` with the same weights; outputs are compared
before anything is timed. `transformers` has no DAB-Deformable-DETR and no DINO: beside these stands its Deformable
DETR of the same width, layers and queries, as two-stage as they are. Beside multi-scale there is also OpenVINO on that
one exported. The floor is the same convolutions and matrix products alone, on the inputs that they had; the
projections that an attention keeps in one packed tensor are not in it. Last comes by which power the time of a model
with several feature levels grows with their tokens: linear is 1.

With `--precision bf16` there are ours, ours in float32, and beside multi-scale OpenVINO in bf16 too.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from exported import looking_with_openvino
from measuring import run_cases, slope, timed
from published import SIZE, build_ours, build_transformers, floor, image
from torch import Tensor

from deformable_detr import ImageBatch
from deformable_detr.detect.runtimes import TorchRuntime
from deformable_detr.model.network import Network

PRESETS = ("multi-scale", "detr", "dab-detr", "dab-deformable-detr", "dino-4scale")
NEAR = "transformers' Deformable DETR"      # another model of the same size
NEAREST = {"dab-deformable-detr": "refine", "dino-4scale": "two-stage"}
SIDES = (224, 320, 448, 640, 896, 1392)     # pixels of square images: 1 045 to 40 265 tokens at four levels
Look = Callable[[], tuple[Tensor, Tensor]]


def looking(model: Network, pixels: Tensor, precision: str = "fp32") -> Look:
    """As `Detector` runs it."""
    batch, runtime = ImageBatch.from_images([pixels]), TorchRuntime(model, precision)

    def look() -> tuple[Tensor, Tensor]:
        found = runtime.run(batch)
        return found.logits[-1], found.boxes[-1]

    return look


def looking_with_transformers(model: Any) -> Look:
    pixels, mask = image()[None], torch.ones(1, *SIZE, dtype=torch.long)

    def look() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            found = model(pixel_values=pixels, pixel_mask=mask)
        return found.logits, found.pred_boxes

    return look


def compare(results: dict[str, Any]) -> None:
    """Print how far the others' outputs are from ours."""
    for name in results.keys() - {"deformable_detr", "floor", NEAR}:
        logits, boxes = (f"{(one - other).abs().max():.1e}" for one, other in
                         zip(results["deformable_detr"], results[name], strict=True))
        print(f"{name}: logits differ by {logits}, boxes by {boxes}")


def cases(preset: str, precision: str) -> dict[str, Callable[[], object]]:
    ours = build_ours(preset)
    return float32_cases(ours, preset) if precision == "fp32" else half_precision_cases(ours, preset, precision)


def half_precision_cases(ours: Network, preset: str, precision: str) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {
        "deformable_detr": looking(ours, image(), precision), "deformable_detr in float32": looking(ours, image())}
    theirs = build_transformers(ours) if preset == "multi-scale" else None
    through_openvino = looking_with_openvino(theirs, image(), precision) if theirs is not None else None
    return {**found, "OpenVINO": through_openvino} if through_openvino else found


def float32_cases(ours: Network, preset: str) -> dict[str, Callable[[], object]]:
    config = ours.config
    nearest = build_ours(NEAREST[preset], ffn_width=config.ffn_width, num_queries=config.num_queries) \
        if preset in NEAREST else ours
    theirs = build_transformers(nearest)
    floor_of_ours = floor(ours, backward=False)
    found: dict[str, Callable[[], object]] = {"deformable_detr": looking(ours, image())}
    if theirs is not None:
        found[NEAR if preset in NEAREST else "transformers"] = looking_with_transformers(theirs)
        through_openvino = looking_with_openvino(theirs, image()) if preset == "multi-scale" else None
        if through_openvino:
            found["OpenVINO"] = through_openvino
    return {**found, "floor": floor_of_ours}


def print_scaling(preset: str | None, repeats: int) -> None:
    ours = build_ours(preset or PRESETS[0])
    if ours.config.paper in ("detr", "dab-detr"):   # whose attention grows with the square
        return
    points = []
    for side in SIDES:
        pixels = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            tokens = ours.pyramid(ours.backbone(ImageBatch.from_images([pixels]))).tokens.shape[1]
        times = timed({"": looking(ours, pixels)}, repeats, in_sequence=True)[""]
        points.append((tokens, statistics.median(times)))
    print(f"time grows with tokens to the power of {slope(points):.2f}, from {points[0][0]} to {points[-1][0]}")


if __name__ == "__main__":
    run_cases(__doc__, cases, compare, f"{SIZE[0]} x {SIZE[1]}", PRESETS, print_scaling,
              precisions=("fp32", "bf16"))
