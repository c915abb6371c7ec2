"""Does reading keep up with the model? `python benchmarks/loader.py DATA --size 256 --augmentation small`.

The loader's work is counted in seconds of one core, which others on the machine disturb little. The model's is a
training step of the run: on a GPU seconds on the clock, on a CPU again seconds of a core, as both share the cores.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from deformable_detr import DeformableDETR, ModelConfig
from deformable_detr.loading.augmentation import train_transform
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.loader import Batch, Collate, build_loader
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import to_device
from deformable_detr.training import Recipe, SetLoss, build_optimizer
from deformable_detr.weights import load


@dataclass(frozen=True)
class Options:
    data: Path
    weights: Path | None
    preset: str
    size: int
    augmentation: str
    batch_size: int
    images: int
    steps: int
    device: str


def seconds_each(work: Callable[[], int]) -> float:
    """Processor time of one image; the work says how many it has done."""
    start = time.process_time()
    done = work()
    return (time.process_time() - start) / done


def reading(options: Options, preprocessing: Preprocessing) -> tuple[dict[str, float], list[Batch]]:
    """Processor seconds an image of each stage on one core, and batches for the model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)    # as a loader's worker process has it
    data = DetectionDataset(options.data, "train", train_transform(options.augmentation, preprocessing))
    loader = build_loader(data, options.batch_size, training=True)
    keys = list(islice(loader.batch_sampler, max(1, options.images // options.batch_size)))
    flat = [key for batch in keys for key in batch]
    collate = Collate(preprocessing.divisor)
    data[flat[0]]   # what is made once

    def count(items: Iterable[object]) -> int:
        return sum(1 for _ in items)

    stages = {"read and decode": seconds_each(lambda: count(data.image(key.index) for key in flat))}
    samples: list = []
    stages["augment, resize, normalise"] = seconds_each(
        lambda: samples.extend(map(data.__getitem__, flat)) or len(samples)) - stages["read and decode"]
    batches: list[Batch] = []

    def stack() -> int:
        left = iter(samples)
        batches.extend(collate(list(islice(left, len(batch)))) for batch in keys)
        return len(samples)

    stages["pad and stack"] = seconds_each(stack)
    torch.set_num_threads(threads)
    return stages, batches


def learning(model: DeformableDETR, batches: list[Batch], options: Options) -> float:
    """Seconds that a training step needs for an image: the median of steps, the first left out."""
    on_gpu = torch.device(options.device).type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    model = model.to(options.device).train()
    optimizer, loss = build_optimizer(model, Recipe()), SetLoss()
    times = []
    for images, targets in batches[:options.steps + 1]:
        start = clock()
        predictions = model(to_device(images, options.device))
        loss(predictions, targets).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        times.append((clock() - start) / len(targets))
    return float(np.median(times[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, help="the model of the run; without, a preset's")
    parser.add_argument("--preset", default="two-stage")
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--augmentation", default="published")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--images", type=int, default=100, help="to be read")
    parser.add_argument("--steps", type=int, default=10, help="of the model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = Options(**vars(parser.parse_args()))
    if options.weights:
        model, info = load(options.weights)
        preprocessing = info.preprocessing
    else:
        model = DeformableDETR(ModelConfig.preset(options.preset))
        preprocessing = Preprocessing(options.size, options.size * 5 // 3)
    stages, batches = reading(options, preprocessing)
    whole = sum(stages.values())
    print(f"{options.data.name}, {options.augmentation}, short side {preprocessing.size}, torch {torch.__version__}\n")
    print("| on one core | ms an image | images a second |\n|---|---|---|")
    for name, seconds in [*stages.items(), ("all", whole)]:
        print(f"| {name} | {1000 * seconds:.1f} | {1 / seconds:.1f} |")
    step = learning(model, batches, options)
    unit = "a core" if options.device == "cpu" else "the GPU"
    print(f"\nA training step at batch {options.batch_size} takes {1000 * step:.0f} ms of {unit} an image. "
          f"One core reads {step / whole:.1f} times as fast.")


if __name__ == "__main__":
    main()
