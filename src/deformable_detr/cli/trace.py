"""`ddetr trace`: every stage from image to box, its tensor, and the statement that made it."""

import json
import os
import sys
from bdb import BdbQuit
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deformable_detr.cli.app import (
    USUAL,
    JsonFlag,
    MessageFlags,
    OptionalPath,
    WrongCallError,
    app,
    find_weights_file,
    output_console,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.cli.outputs import check_page
from deformable_detr.papers.config import Preset
from deformable_detr.text import printable
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    from deformable_detr.explain import Stage
    from deformable_detr.model.network import Network

LEGEND = ("B images, L levels, N tokens of all levels, C channels, M heads, D = C / M, P points, Q queries, "
          "K classes, T detections")
HOW_TO_READ = ("Below each stage: the line of the statement that made it, milliseconds since the stage above, and why; "
               "sections without a name are Deformable DETR's")

Images = list[tuple[str, tuple[int, int]]]      # names, (height, width)


@app.command
def trace(images: list[str], /, *, preset: Preset | None = None, weights: str | None = None,
          layers: Literal["first", "all"] = "first", stop_at: str | None = None, html: OptionalPath = None,
          as_json: JsonFlag = False, messages: MessageFlags = USUAL) -> int:
    """Print every stage from image to box: the file of the package, the tensor's name, shape and range, the
    milliseconds and the line of the statement that made it, and why it is made.

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
    stop_at
        A stage at which to open a debugger, in the line that made it, where `tensor` is what is printed: its name,
        such as "sampling offsets", or part and name, such as "decoder layer 2 boxes". PYTHONBREAKPOINT chooses the
        debugger.
    html
        Also write the stages as a page, each with the source around its line.
    as_json
        Print one object of JSON, and nothing else.
    """
    messages.start()
    _check(preset, weights, stop_at, html, as_json=as_json)
    weights = weights or DEMO
    start = preset or find_weights_file(weights)
    found, errors = _sizes(images)
    try:
        stages = _trace([name for name, _ in found], start, layers == "all", stop_at) if found else []
    except BdbQuit:     # the debugger's "quit"
        return 0
    title = f"preset {preset}, random weights, images not resized" if preset else f"weights {weights}"
    if html and stages:
        _write_page(html, title, found, stages)
    if as_json:
        print_line(json.dumps({
            "pictures": [{"file": name, "width": width, "height": height} for name, (height, width) in found],
            "errors": errors,
            "stages": [stage.to_dict() for stage in stages]}))
    elif stages:
        _print_text(title, [name for name, _ in found], stages)
    broken = next((stage for stage in stages if not stage.is_finite), None)
    if broken:
        report_error(f"values that are not finite, first in {broken.name} of {broken.file}")
    return 1 if errors or broken else 0


def _check(preset: Preset | None, weights: str | None, stop_at: str | None, html: Path | None, *,
           as_json: bool) -> None:
    """What can be wrong with a call, before torch is imported."""
    if preset and weights:
        raise WrongCallError("--preset: its weights are random; give either --preset or --weights")
    if stop_at is not None and as_json:
        raise WrongCallError("--stop-at and --json: expected one of them, since a debugger prints too")
    if stop_at is not None and sys.stdin is None and "PYTHONBREAKPOINT" not in os.environ:
        raise WrongCallError("--stop-at: the debugger reads its commands from standard input, which is closed")
    if html:
        check_page("--html", html)


def _trace(images: Sequence[str], start: str | Path, every_layer: bool, stop_at: str | None) -> "list[Stage]":
    """The stages of a preset, or of a file of weights."""
    from deformable_detr.explain import trace_images
    from deformable_detr.explain.stopping import StopAt
    from deformable_detr.explain.tracing import nowhere
    from deformable_detr.memory import one_memory_error
    from deformable_detr.weights import read_any

    stop = None if stop_at is None else StopAt(stop_at, _announce)
    with wrong_call_for(ValueError, MemoryError), one_memory_error():
        model, info = (_random_model(start), None) if isinstance(start, str) else read_any(start)
        known = {} if info is None else {"preprocessing": info.preprocessing, "names": info.names,
                                         "postprocessing": info.postprocessing}
        stages = trace_images(model, images, **known, every_layer=every_layer or stop is not None,
                              stop=stop or nowhere, warm=stop is None)
    if stop and not stop.is_done:
        raise WrongCallError(f"--stop-at: expected one of the stages that ddetr trace prints, got {stop_at!r}"
                             f"{stop.suggestion(stages)}")
    return stages


def _announce(stage: "Stage") -> None:
    """What is at hand, before a debugger opens."""
    where = ", ".join(filter(None, (f"{stage.file}:{stage.line}", stage.part, stage.name)))
    sys.stderr.write(f"{where}: `tensor` is {stage.dtype} {stage.shape}, {stage.axes}\n  {stage.reason}\n")
    sys.stderr.flush()


def _write_page(path: Path, title: str, images: Images, stages: "Sequence[Stage]") -> None:
    from deformable_detr.explain.trace_page import trace_page
    from deformable_detr.files import write_whole

    with wrong_call_for(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, trace_page(title, [name for name, _ in images], stages, LEGEND))


def _random_model(preset: str) -> "Network":
    """The preset's model, always with the same weights."""
    import torch

    from deformable_detr.papers import ModelConfig, build_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(ModelConfig.preset(preset)).eval()


def _sizes(sources: Sequence[str]) -> tuple[Images, list[dict[str, str]]]:
    """The images that can be read, and for each of the others its file and the problem, which is printed too."""
    from deformable_detr.images import ImageError, read_image

    images, errors = [], []
    for source in sources:
        try:
            height, width, _ = read_image(source).shape
            images.append((source, (height, width)))
        except ImageError as error:
            report_error(str(error))
            errors.append({"file": source, "error": str(error)})
    return images, errors


def _print_text(model: str, images: Sequence[str], stages: "Sequence[Stage]") -> None:
    """A heading for each file of the package, under it a line for each stage with its notes."""
    from rich.padding import Padding
    from rich.text import Text

    console = output_console()
    console.print(Text(printable(model)))
    for index, name in enumerate(images):
        console.print(Text(printable(f"image {index}: {name}")))
    console.print(Text(LEGEND, style="dim"))
    console.print(Text(HOW_TO_READ, style="dim"))
    title, *rows = _aligned([("", "shape", "axes", "range"), *map(_cells, stages)])
    console.print(Text(title, style="dim"))
    above = ""
    for stage, row in zip(stages, rows, strict=True):
        heading = ", ".join(filter(None, (stage.file, stage.part)))
        if heading != above:
            console.print(Text(heading, style="bold cyan"))
        above = heading
        console.print(Text(row))
        for note in (_made(stage), *stage.notes):
            console.print(Padding(Text(printable(note), style="dim"), (0, 0, 0, 6), expand=False))


def _cells(stage: "Stage") -> tuple[str, str, str, str]:
    return f"  {stage.name}", str(stage.shape), stage.axes, f"{_short(stage.low)} .. {_short(stage.high)}"


def _made(stage: "Stage") -> str:
    time = "" if stage.milliseconds is None else f" {stage.milliseconds:.1f} ms:"
    return f"{stage.file}:{stage.line}{time} {stage.reason}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
