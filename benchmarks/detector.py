"""How fast the multi-scale detector is: `python benchmarks/detector.py`.

Beside it, where they are installed, the same detector of `transformers` with the same weights, and OpenVINO on that one
exported; outputs are compared before anything is timed. The floor is the same convolutions and matrix products alone,
on the inputs that they had.
"""

from collections.abc import Callable
from typing import Any

import torch
from exported import looking_with_openvino
from measuring import run_cases
from published import SIZE, build_ours, build_transformers, floor, image
from torch import Tensor

from deformable_detr import DeformableDETR, ImageBatch
from deformable_detr.model.folding import fold_batch_norm

Look = Callable[[], tuple[Tensor, Tensor]]


def looking(model: DeformableDETR) -> Look:
    batch = ImageBatch.from_images([image()])

    def look() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            found = model(batch)
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
    for name in results.keys() - {"deformable_detr", "floor"}:
        logits, boxes = (f"{(one - other).abs().max():.1e}" for one, other in
                         zip(results["deformable_detr"], results[name], strict=True))
        print(f"{name}: logits differ by {logits}, boxes by {boxes}")


def cases() -> dict[str, Callable[[], object]]:
    ours = build_ours()
    theirs = build_transformers(ours)
    floor_of_ours = floor(ours, backward=False)
    ours.backbone.net = fold_batch_norm(ours.backbone.net)   # as `Detector` does with its copy
    found: dict[str, Callable[[], object]] = {"deformable_detr": looking(ours)}
    if theirs is not None:
        found["transformers"] = looking_with_transformers(theirs)
        through_openvino = looking_with_openvino(theirs, image())
        if through_openvino:
            found["OpenVINO"] = through_openvino
    return {**found, "floor": floor_of_ours}


if __name__ == "__main__":
    run_cases(__doc__, cases, compare, f"{SIZE[0]} x {SIZE[1]}")
