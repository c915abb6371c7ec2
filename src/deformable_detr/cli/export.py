"""`ddetr export`: a model for another runtime, kept only if it answers there as it does here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from deformable_detr.cli.app import (
    USUAL,
    MessageFlags,
    OptionalPath,
    WrongCallError,
    app,
    find_weights_file,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.text import printable
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    from deformable_detr.export import Exported
    from deformable_detr.export.sessions import Target

To = Literal["onnx", "openvino", "torch"] | None
SUFFIXES: "dict[Target, str]" = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


@app.command
def export(*, weights: str = DEMO, to: To = None,
           out: OptionalPath = None, op: Literal["gridsample", "gather"] = "gridsample",
           size: str | None = None, batch: int | None = None, raw: bool = False, top_k: int = 100,
           pictures: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative=())] = None,
           precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32", data: OptionalPath = None,
           max_ap_loss: float = 0.5, messages: MessageFlags = USUAL) -> int:
    """Write a model for ONNX Runtime, OpenVINO or TensorRT, and prove there that it is the same.

    The file is run beside PyTorch on real images at two sizes, alone and in batches; the differences are printed.
    One that differs by more than 0.001 in a logit or 0.1 pixels in a box is not left behind.

    Parameters
    ----------
    weights
        "demo" for the packaged ones, a name that `ddetr weights` lists, "hf:owner/name", a file or a folder.
    to
        The runtime, by default that of the suffix of --out: .onnx, .xml (OpenVINO) or .pt2 (torch).
    out
        The file; by default named for the weights. OpenVINO's has another beside it that ends in .bin. Only a file of
        an earlier export is replaced.
    op
        How deformable attention is written: gridsample for ONNX Runtime and OpenVINO; gather, without GridSample and
        with tensors of rank 5 at most, for TensorRT, Core ML and older runtimes.
    size
        HEIGHTxWIDTH of all images, which are made to fit and padded; by default any size.
    batch
        The number of images in every batch; by default any number.
    raw
        Leave out normalising before the model and the best detections after it.
    top_k
        The number of best detections that the file returns for an image.
    pictures
        Images or folders of images to compare on, by default the packaged ones.
    precision
        Of the heavy products. fp16 (also bf16 for .pt2) halves the file. int8 is calibrated on --data.
    data
        For int8: the folder of a data set, whose training split is calibrated on and whose validation split counts.
    max_ap_loss
        For int8: the points of AP, of 100, that it may cost. A file that loses more is not left behind.
    """
    messages.start()
    target, path = _target(to, out, weights)
    if path.exists() and not path.is_file():
        raise WrongCallError(f"--out: expected a file, got {path}")
    weights_file = find_weights_file(weights)

    from deformable_detr.detect.detector import Detector
    from deformable_detr.detect.trial import int8_trial
    from deformable_detr.export import ExportError, Form
    from deformable_detr.images import find_images

    with wrong_call_for(ValueError, OSError):
        form = Form(op=op, raw=raw, batch=batch, size=_size(size), top_k=top_k, precision=precision)
        detector = Detector(weights_file, "cpu")
        chosen = None if pictures is None else [path for each in pictures for path in find_images(each)]
        model = detector.model
    try:
        trial = None if data is None else int8_trial(detector, data, max_ap_loss / 100, messages.progress)
        exported = detector.export(path, target=target, form=form, pictures=chosen, trial=trial,
                                   report=lambda line: None if messages.quiet else print_line(printable(line)))
    except ExportError as error:
        report_error(str(error))
        return 1
    except (ValueError, MemoryError, OSError) as error:
        raise WrongCallError(str(error)) from error
    print_line(printable(f"{path}: {model.config.paper}, {path.stat().st_size / 1e6:.1f} MB; {_how_near(exported)}"))
    return 0


def _how_near(exported: "Exported") -> str:
    if exported.ap is not None:
        before, after = exported.ap
        return f"int8, which loses {100 * (before - after):.2f} of {100 * before:.2f} points of AP"
    if exported.agreement is not None:
        return f"edges of boxes within {exported.agreement.largest:.1f} pixels of PyTorch's in float32"
    worst = max(each.pixels for each in exported.differences)
    return f"boxes within {worst:.1e} pixels of PyTorch's in {len(exported.differences)} batches"


def _target(to: To, out: Path | None, weights: str) -> "tuple[Target, Path]":
    """The runtime and the file, each of which may follow from the other."""
    if out is None:
        chosen: Target = to or "onnx"
        return chosen, Path(f"{Path(weights).stem or 'model'}{SUFFIXES[chosen]}")
    names: dict[str, Target] = {suffix: name for name, suffix in SUFFIXES.items()}
    found = names.get(out.suffix.lower())
    if found is None or (to is not None and found != to):
        expected = SUFFIXES[to] if to else ", ".join(names)
        raise WrongCallError(f"--out: expected a name that ends in {expected}, got {out}")
    return found, out


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and len(side) < 6 for side in sides):
        raise WrongCallError(f"--size: expected HEIGHTxWIDTH in pixels, such as 480x640, got {text!r:.100}")
    return int(sides[0]), int(sides[1])
