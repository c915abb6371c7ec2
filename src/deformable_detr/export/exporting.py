"""A detector out to another runtime: written, run there beside PyTorch, and kept only if it answers the same."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from deformable_detr.export.agreement import Agreement, agreement
from deformable_detr.export.cases import Case, calibration_batches, cases
from deformable_detr.export.files import write_onnx, write_openvino, write_program
from deformable_detr.export.graph import CHOSEN, DETECTIONS, RAW_OUTPUTS, DetectorGraph
from deformable_detr.export.metadata import Form, write_metadata
from deformable_detr.export.program import detector_graph, export_program, lowered
from deformable_detr.export.proof import Difference, Limits, compare
from deformable_detr.export.quantising import Trial, check_accuracy, quantise
from deformable_detr.export.replacing import check_replaceable, replace_files
from deformable_detr.export.sessions import (
    SUFFIXES,
    ExportError,
    OnnxSession,
    OpenvinoSession,
    Session,
    Target,
    TorchSession,
)
from deformable_detr.images import ImageSource, read_image
from deformable_detr.memory import one_memory_error
from deformable_detr.model.half import HALF
from deformable_detr.model.network import Network
from deformable_detr.model.queries import ProposalQueries
from deformable_detr.weights.info import ModelInfo

UNKNOWN_PRECISIONS = {
    ("onnx", "bf16"): "ONNX Runtime has no products in bf16 for the CPU; expected fp32, fp16 or int8 for .onnx",
    ("openvino", "bf16"): "OpenVINO computes a file of fp32 in bf16 if asked when it is loaded, as by "
                          "Detector(path, precision='bf16'); expected fp32, fp16 or int8 for .xml",
    ("torch", "int8"): "expected fp32, bf16 or fp16 for .pt2",
}
MOVED = 2.0     # pixels in the mean by which half precision may move the edges of boxes

_one_at_a_time = Lock()     # PyTorch's exporter has state that threads would share


@dataclass(frozen=True)
class Exported:
    """A file that answers as PyTorch does, and how nearly: `differences` in float32, `agreement` and `ap` in less."""

    path: Path
    form: Form
    differences: list[Difference] = field(default_factory=list)
    agreement: Agreement | None = None
    ap: tuple[float, float] | None = None       # in [0, 1], of PyTorch in float32 and of the file in int8


def export(model: Network, info: ModelInfo, path: str | Path, pictures: Sequence[ImageSource], form: Form | None = None,
           *, target: Target | None = None, limits: Limits | None = None, trial: Trial | None = None,
           report: Callable[[str], None] = lambda _: None) -> Exported:
    """Write `model` for another runtime, and prove on `pictures` that the file answers the same.

    `target` follows from the suffix: .onnx, .xml (OpenVINO, which also writes a .bin beside it) or .pt2
    (`torch.export`). `report` is told what is done and found, a line at a time. For int8 the file in float32 is proven
    first, then `trial` says on what to calibrate and how much AP may be lost. Raises ExportError if the file would
    differ by more than `limits`, in which case none is left behind, or its runtime is not installed; ValueError for a
    suffix or a precision that does not fit, and where `path` is a file of another kind than this writes; OSError if
    the file cannot be written.
    """
    path, form = Path(path), form or Form()
    target = check_target(path, target)
    check_replaceable(path)
    _check_precision(form, target, trial)
    if not pictures:
        raise ValueError("pictures: expected at least one to compare on, got none")
    with _one_at_a_time, one_memory_error(), tempfile.TemporaryDirectory(prefix="deformable-detr-") as folder:
        work = _Work(detector_graph(model, info.preprocessing, form), info, form, target,
                     write_metadata(model.config, info, form), pictures, report)
        there = Path(folder, path.stem + path.suffix.lower())       # some writers know no other
        with _named_as(path, there):
            if trial is not None:
                exported = work.in_int8(there, limits or Limits(), trial)
            elif form.precision in HALF:
                exported = work.in_half(there)
            else:
                exported = work.in_float32(there, limits or Limits())
        replace_files(there, path)
    return replace(exported, path=path)


@dataclass(frozen=True)
class _Work:
    """What every way to export needs. Each writes a file in a folder of its own, and proves it."""

    graph: DetectorGraph
    info: ModelInfo
    form: Form
    target: Target
    metadata: str
    pictures: Sequence[ImageSource]
    report: Callable[[str], None]

    def in_float32(self, path: Path, limits: Limits) -> Exported:
        session = self._written(path)
        differences = []
        for case in self._cases():
            differences.append(compare(session, self.graph, case))
            self.report(str(differences[-1]))
        worst = next((each for each in differences if not each.is_within(limits)), None)
        if worst is not None:
            raise ExportError(f"{path}: not written, since it differs from PyTorch: {worst}; expected at most "
                              f"{limits.logits:g} and {limits.pixels:g} pixels")
        return Exported(path, self.form, differences)

    def in_half(self, path: Path) -> Exported:
        found = self._agreement(self._written(path))
        if found.found < found.expected or found.mean > MOVED:
            raise ExportError(f"{path}: not written, since it differs from PyTorch: {found}; expected all, moved "
                              f"by at most {MOVED:g} in the mean")
        return Exported(path, self.form, agreement=found)

    def in_int8(self, path: Path, limits: Limits, trial: Trial) -> Exported:
        """By way of an ONNX file in float32, which is proven first."""
        with tempfile.TemporaryDirectory(prefix="deformable-detr-") as folder:
            source = Path(folder, "float32.onnx")
            with _named_as(path, source):
                exported = replace(self, target="onnx").in_float32(source, limits)
            self.report("calibrating int8")
            in_onnx = path if self.target == "onnx" else Path(folder, "int8.onnx")
            batches = ((case.images.numpy(), case.sizes.numpy())
                       for case in calibration_batches(trial.pictures, self.info.preprocessing, self.form))
            names = quantise(source, in_onnx, batches)
            self.report(f"{len(names)} steps of the backbone, the pyramid and the tokens are in int8")
            if self.target == "openvino":
                write_openvino(in_onnx, path, self.metadata)
        found = self._agreement(_open(path, self.target, self.graph, self.metadata))
        return replace(exported, agreement=found, ap=check_accuracy(path, trial, self.report))

    def _cases(self) -> Iterator[Case]:
        return cases(map(read_image, self.pictures), self.info.preprocessing, self.form)

    def _written(self, path: Path) -> Session:
        self.report("exporting, which takes a minute or two")
        _write(self.graph, path, self.target, self.form, self.metadata)
        session = _open(path, self.target, self.graph, self.metadata)
        self.report("comparing with PyTorch")
        return session

    def _agreement(self, session: Session) -> Agreement:
        found = agreement(session, self.graph, self._cases())
        self.report(str(found))
        return found


@contextmanager
def _named_as(path: Path, there: Path) -> Iterator[None]:
    """Errors name the file that was asked for, not the one that was written for a trial."""
    try:
        yield
    except ExportError as error:
        raise ExportError(str(error).replace(str(there), str(path))) from None


def _check_precision(form: Form, target: Target, trial: Trial | None) -> None:
    """Raise ValueError where there is no such file, before minutes are spent on it."""
    reason = UNKNOWN_PRECISIONS.get((target, form.precision))
    if reason is not None:
        raise ValueError(f"precision: {reason}, got {form.precision}")
    if (form.precision == "int8") != (trial is not None):
        raise ValueError("data: expected a data set to calibrate int8 on and to count what it costs, got none"
                         if trial is None else f"data: expected none for {form.precision}, which is not calibrated")


def check_target(path: Path, target: str | None) -> Target:
    """The target that the path's suffix names. Raises ValueError if it names none, or another than `target`."""
    found = SUFFIXES.get(path.suffix.lower())
    suffixes = {name: suffix for suffix, name in SUFFIXES.items()}
    if found is None or (target is not None and found != target):
        expected = suffixes[target] if target in suffixes else ", ".join(SUFFIXES)
        raise ValueError(f"path: expected a name that ends in {expected}, got {path}")
    return found


def output_names(graph: DetectorGraph) -> list[str]:
    """The names of the outputs, in order."""
    chosen = CHOSEN if isinstance(graph.model.queries, ProposalQueries) else ()
    return [*RAW_OUTPUTS, *chosen, *(() if graph.best is None else DETECTIONS)]


def _write(graph: DetectorGraph, path: Path, target: Target, form: Form, metadata: str) -> None:
    program = export_program(lowered(graph, form), form)
    if target == "torch":
        write_program(program, path, metadata)
    elif target == "onnx":
        write_onnx(program, path, output_names(graph), metadata)
    else:
        with tempfile.TemporaryDirectory(prefix="deformable-detr-") as folder:
            onnx_file = Path(folder, "model.onnx")
            write_onnx(program, onnx_file, output_names(graph), metadata)
            write_openvino(onnx_file, path, metadata)


def _open(path: Path, target: Target, graph: DetectorGraph, metadata: str) -> Session:
    """Raises ExportError if the file cannot be loaded, or has lost what it says about itself."""
    if target == "torch":
        session: Session = TorchSession(path, output_names(graph))
    else:
        session = OnnxSession(path, "cpu") if target == "onnx" else OpenvinoSession(path, "cpu")
    if session.metadata != metadata:
        raise ExportError(f"{path}: the metadata cannot be read back")
    return session
