"""`ddetr trace`: every stage from image to box, its tensor and its shape."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deformable_detr.cli.app import (
    USUAL,
    JsonFlag,
    MessageFlags,
    WrongCallError,
    app,
    find_weights_file,
    output_console,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.papers.config import Preset
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    import numpy as np

    from deformable_detr.explain import Stage
    from deformable_detr.model.network import Network

LEGEND = ("B images, L levels, N tokens of all levels, C channels, M heads, D = C / M, P points, Q queries, "
          "K classes, T detections")


@app.command
def trace(images: list[str], /, *, preset: Preset | None = None, weights: str | None = None,
          layers: Literal["first", "all"] = "first", as_json: JsonFlag = False,
          messages: MessageFlags = USUAL) -> int:
    """Print every stage from image to box: the file of the package, the tensor's name, shape and range.

    Parameters
    ----------
    images
        Images, which become one batch.
    preset
        A published detector with random weights, always the same. Images are not resized, so that large ones need
        much memory.
    weights
        "demo" for the packaged ones, a name that `ddetr weights` lists, "hf:owner/name", a file or a
        folder; by default "demo". Images are resized as for
        the training of the weights.
    layers
        Which layers of encoder and decoder to look into: the first of each, or all.
    as_json
        Print one object of JSON, and nothing else.
    """
    messages.start()
    if preset and weights:
        raise WrongCallError("--preset: its weights are random; give either --preset or --weights")
    weights = weights or DEMO
    start = preset or find_weights_file(weights)
    decoded, errors = _read_images(images)
    stages = _trace([array for _, array in decoded], start, layers == "all") if decoded else []
    if as_json:
        print_line(json.dumps({
            "pictures": [{"file": name, "width": array.shape[1], "height": array.shape[0]} for name, array in decoded],
            "errors": errors,
            "stages": [stage.to_dict() for stage in stages]}))
    elif stages:
        title = f"preset {preset}, random weights, images not resized" if preset else f"weights {weights}"
        _print_text(title, [name for name, _ in decoded], stages)
    broken = next((stage for stage in stages if not stage.is_finite), None)
    if broken:
        report_error(f"values that are not finite, first in {broken.name} of {broken.file}")
    return 1 if errors or broken else 0


def _trace(images: "Sequence[np.ndarray]", start: str | Path, every_layer: bool) -> "list[Stage]":
    """The stages of a preset, or of a file of weights."""
    from deformable_detr.detect.runtimes import one_memory_error
    from deformable_detr.explain import trace_images
    from deformable_detr.weights import read_any

    with wrong_call_for(ValueError, MemoryError), one_memory_error():
        if isinstance(start, str):
            return trace_images(_random_model(start), images, every_layer=every_layer)
        model, info = read_any(start)
        return trace_images(model, images, info.preprocessing, info.names, postprocessing=info.postprocessing,
                            every_layer=every_layer)


def _random_model(preset: str) -> "Network":
    """The preset's model, always with the same weights."""
    import torch

    from deformable_detr.papers import ModelConfig, build_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(ModelConfig.preset(preset)).eval()


def _read_images(sources: Sequence[str]) -> "tuple[list[tuple[str, np.ndarray]], list[dict[str, str]]]":
    """The images that can be read, and for each of the others its file and the problem, which is printed too."""
    from deformable_detr.images import ImageError, read_image

    images, errors = [], []
    for source in sources:
        try:
            images.append((source, read_image(source)))
        except ImageError as error:
            report_error(str(error))
            errors.append({"file": source, "error": str(error)})
    return images, errors


def _print_text(model: str, images: Sequence[str], stages: "Sequence[Stage]") -> None:
    """A heading for each file of the package, under it a line for each stage with its notes."""
    from rich.padding import Padding
    from rich.text import Text

    console = output_console()
    console.print(Text(model))
    for index, name in enumerate(images):
        console.print(Text(f"image {index}: {name}"))
    console.print(Text(LEGEND, style="dim"))
    title, *rows = _aligned([("", "shape", "axes", "range"), *map(_cells, stages)])
    console.print(Text(title, style="dim"))
    above = ""
    for stage, row in zip(stages, rows, strict=True):
        heading = ", ".join(filter(None, (stage.file, stage.part)))
        if heading != above:
            console.print(Text(heading, style="bold cyan"))
        above = heading
        console.print(Text(row))
        for note in stage.notes:
            console.print(Padding(Text(note, style="dim"), (0, 0, 0, 6), expand=False))


def _cells(stage: "Stage") -> tuple[str, str, str, str]:
    return f"  {stage.name}", str(stage.shape), stage.axes, f"{_short(stage.low)} .. {_short(stage.high)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
