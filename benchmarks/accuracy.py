"""What a user gets for his time: `python benchmarks/accuracy.py DATA OUT DETECTOR --backbone-weights FILE [--seed 1]`.

Each call trains one detector on DATA (`train` and `val`, any format) for `--minutes` of wall clock (30), from the same
ImageNet weights of EfficientNet-Lite0, counts its AP on `val` with the same evaluator, and leaves
OUT/DETECTOR-SEED.json. Each prints a table of all that OUT holds; without DETECTOR nothing else happens. Where several
calls run at once, or the machine does other work, their times mean nothing.

DETECTOR is

    ours                ddetr train with the backbone and no other flag
    published           ddetr train --preset two-stage: the published model and recipe, the rate falling at 4/5
    transformers        its DeformableDetr as its config makes it, by its Trainer, with the settings of its example
                        for object detection: batches of 8, rate 5e-5, weight decay 1e-4
    transformers-small  the same with our sizes, two-stage, losses of every layer, batches of 2, the published rate 2e-4
    fcos                torchvision's FCOS, width 128, SGD as in its references, rates scaled to batches of 2

All learn from images of the same size, chosen for the data as `ddetr train` does; the last three read them with our
loader, augmented as "small", and take as many steps as short trials say that the minutes hold.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accuracy_peers import Setting, race_fcos, race_transformers, race_transformers_small
from equal_time import train_for

from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.training.defaults import default_size

BACKBONE = "tf_efficientnet_lite0"
PEERS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "transformers": race_transformers, "transformers-small": race_transformers_small, "fcos": race_fcos}
FLAGS: dict[str, Callable[[int, int], list[str]]] = {     # of the number of epochs and the size of images
    "ours": lambda _, __: [],
    "published": lambda epochs, size: ["--preset", "two-stage", "--size", str(size), "--drop-epoch",
                                       str(max(1, epochs * 4 // 5))]}


def race(options: argparse.Namespace) -> dict[str, Any]:
    """Train one detector; what is kept of it."""
    common = {"detector": options.detector, "seed": options.seed, "cores": len(os.sched_getaffinity(0))}
    size = default_size(DetectionDataset(options.data, "train").annotations.images)
    if options.detector in PEERS:
        setting = Setting(options.data, BACKBONE, options.backbone_weights, size, options.seed, 60 * options.minutes)
        return {**common, **PEERS[options.detector](setting)}
    always = ["--backbone", BACKBONE, "--backbone-weights", str(options.backbone_weights), "--seed", str(options.seed)]
    folder = options.out / f"{options.detector}-{options.seed}"
    run = train_for(options.minutes, options.data, folder,
                    lambda epochs: [*always, *FLAGS[options.detector](epochs, size)])
    return {**common, "minutes": run.minutes, "looks": f"{run.epochs} epochs",
            **{name: float(run.last[name]) for name in ("AP", "AP50")}}


def table(out: Path) -> str:
    """All results in the folder as Markdown."""
    lines = ["| detector | seed | AP | AP50 | looks | minutes |", "|---|---|---|---|---|---|"]
    for result in (json.loads(path.read_text()) for path in sorted(out.glob("*.json"))):
        lines.append(f"| {result['detector']} | {result['seed']} | {result['AP']:.3f} | {result['AP50']:.3f} | "
                     f"{result['looks']} | {result['minutes']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("detector", nargs="?", choices=[*FLAGS, *PEERS])
    parser.add_argument("--backbone-weights", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    if options.detector and not options.backbone_weights:
        parser.error("--backbone-weights: expected a file to start the backbone from")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.detector:
        result = race(options)
        (options.out / f"{options.detector}-{options.seed}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(options.out))


if __name__ == "__main__":
    main()
