"""`ddetr trace`: every stage from image to box, its tensor and its shape."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deformable_detr.cli.app import (
    JsonFlag,
    WrongCallError,
    app,
    check_weights_exist,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.cli.train import Preset

if TYPE_CHECKING:
    import numpy as np

    from deformable_detr.explain import Stage
    from deformable_detr.papers import DeformableDETR
    from deformable_detr.preprocessing import Preprocessing

LEGEND = ("B images, L levels, N tokens of all levels, C channels, M heads, D = C / M, P points, Q queries, "
          "K classes, T detections")
UNBROKEN = 100_000   # characters of a line in a file or a pipe


@app.command
def trace(images: list[Path], /, *, preset: Preset | None = None, weights: str | None = None,
          layers: Literal["first", "all"] = "first", as_json: JsonFlag = False) -> int:
    """Tell every stage from image to box: the file of the package, the tensor's name, shape and range.

    Parameters
    ----------
    images
        Images, which become one batch.
    preset
        A published detector with random weights, always the same; images are not resized, so that large
        ones need much memory.
    weights
        "demo" for the packaged ones, a file, or "hf:owner/name"; by default "demo". Images are resized as
        the weights want it.
    layers
        Which layers of encoder and decoder to look into: the first of each, or all.
    as_json
        Print one object of JSON, and nothing else.
    """
    if preset and weights:
        raise WrongCallError("--preset: its weights are random; give either --preset or --weights")
    weights = weights or "demo"
    if not preset:
        check_weights_exist(weights)

    from deformable_detr.explain import trace_images

    with wrong_call_for(ValueError):
        model, preprocessing, names = _random_model(preset) if preset else _load_model(weights)
    decoded, errors = _read_images(images)
    stages = []
    if decoded:
        arrays = [array for _, array in decoded]
        stages = trace_images(model, arrays, preprocessing, names, every_layer=layers == "all")
    if as_json:
        print_line(json.dumps({
            "pictures": [{"file": str(path), "width": array.shape[1], "height": array.shape[0]}
                         for path, array in decoded],
            "errors": errors,
            "stages": [stage.to_dict() for stage in stages]}))
    elif stages:
        title = f"preset {preset}, random weights, images not resized" if preset else f"weights {weights}"
        _print_text(title, [path for path, _ in decoded], stages)
    return 1 if errors else 0


def _random_model(preset: Preset) -> "tuple[DeformableDETR, None, None]":
    """The preset's model, always with the same weights; no preprocessing and no names belong to it."""
    import torch

    from deformable_detr.papers import DeformableDETR, ModelConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DeformableDETR(ModelConfig.preset(preset)).eval(), None, None


def _load_model(weights: str) -> "tuple[DeformableDETR, Preprocessing, tuple[str, ...]]":
    from deformable_detr.detect.detector import Detector

    detector = Detector(weights, device="cpu")
    return detector.model, detector.info.preprocessing, detector.names


def _read_images(paths: Sequence[Path]) -> "tuple[list[tuple[Path, np.ndarray]], list[dict[str, str]]]":
    """Those that can be read, and for each of the others its file and what is wrong with it, which is told."""
    from deformable_detr.images import ImageError, read_image

    images, errors = [], []
    for path in paths:
        try:
            images.append((path, read_image(path)))
        except ImageError as error:
            report_error(str(error))
            errors.append({"file": str(path), "error": str(error)})
    return images, errors


def _print_text(model: str, paths: Sequence[Path], stages: "Sequence[Stage]") -> None:
    """A heading for each file of the package, under it a line for each stage with its notes."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBROKEN
    console.print(Text(model))
    for index, path in enumerate(paths):
        console.print(Text(f"image {index}: {path}"))
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
