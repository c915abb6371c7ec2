"""An equal-time comparison of the papers: `python benchmarks/family.py DATA OUT PRESET [--minutes 60]`.

Each call trains one preset on DATA (`train` and `val`, any format) for that many minutes of wall clock, with the same
small backbone, sizes and augmentation, and leaves OUT/PRESET.json beside the run's folder. Each prints a table of all
that OUT holds; without PRESET nothing else happens. Where several calls run at once, or the machine does other work,
their times mean nothing. What follows `--` goes to `ddetr train`, for instance
`-- --backbone-weights efficientnet-lite0.pth`.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from equal_time import train_for

PRESETS = ("detr", "multi-scale", "two-stage", "dab-detr", "dab-deformable-detr", "dino-4scale")
MODEL = {"backbone": "tf_efficientnet_lite0", "width": 128, "num_encoder_layers": 2, "num_decoder_layers": 3,
         "ffn_width": 512, "num_queries": 100, "dropout": 0.0}
RECIPE = {"size": 256, "augmentation": "small", "batch_size": 2, "learning_rate": 3e-4, "backbone_learning_rate": 1e-4,
          "schedule": "cosine", "warmup_steps": 50, "ema_decay": 0.998, "num_workers": 1}


def compare(data: Path, out: Path, preset: str, minutes: float, more: list[str]) -> dict[str, Any]:
    """Train one preset; what is kept of it."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in {**MODEL, **RECIPE}.items()]
    run = train_for(minutes, data, out / preset, lambda _: ["--preset", preset, *flags, *more])
    return {"preset": preset, "minutes": minutes, "trial_seconds": run.trial_seconds, "seconds": run.seconds,
            "epochs": run.epochs, "cores": len(os.sched_getaffinity(0)), "model": MODEL, "recipe": RECIPE,
            "flags": more, **{name: float(run.last[name]) for name in ("loss", "AP", "AP50", "AP75")}}


def table(out: Path) -> str:
    """All results in the folder as Markdown."""
    lines = ["| preset | AP | AP50 | AP75 | loss | epochs | minutes |", "|---|---|---|---|---|---|---|"]
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    for result in sorted(found, key=lambda result: -result["AP"]):
        minutes = (result["trial_seconds"] + result["seconds"]) / 60
        lines.append(f"| {result['preset']} | {result['AP']:.3f} | {result['AP50']:.3f} | {result['AP75']:.3f} | "
                     f"{result['loss']:.2f} | {result['epochs']} | {minutes:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("preset", nargs="?", choices=PRESETS)
    parser.add_argument("--minutes", type=float, default=60)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, more = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1:]
    if options.preset:
        options.out.mkdir(parents=True, exist_ok=True)
        result = compare(options.data, options.out, options.preset, options.minutes, more)
        (options.out / f"{options.preset}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(options.out))


if __name__ == "__main__":
    main()
