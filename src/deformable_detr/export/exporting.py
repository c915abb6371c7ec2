"""A detector out to another runtime: written, run there beside PyTorch, and kept only if it answers the same."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deformable_detr.export.cases import Pixels, cases
from deformable_detr.export.files import write_onnx, write_openvino, write_program
from deformable_detr.export.graph import CHOSEN, DETECTIONS, RAW_OUTPUTS, DetectorGraph
from deformable_detr.export.metadata import Form, write_metadata
from deformable_detr.export.program import detector_graph, export_program
from deformable_detr.export.proof import Difference, Limits, compare
from deformable_detr.export.sessions import (
    SUFFIXES,
    ExportError,
    OnnxSession,
    OpenvinoSession,
    Session,
    Target,
    TorchSession,
)
from deformable_detr.files import write_whole
from deformable_detr.model.network import Network
from deformable_detr.model.queries import ProposalQueries
from deformable_detr.weights.info import ModelInfo


@dataclass(frozen=True)
class Exported:
    """A file that answers as PyTorch does, and how nearly."""

    path: Path
    form: Form
    differences: list[Difference] = field(default_factory=list)


def export(model: Network, info: ModelInfo, path: str | Path, pictures: Sequence[Pixels], form: Form | None = None,
           *, target: Target | None = None, limits: Limits | None = None,
           report: Callable[[str], None] = lambda _: None) -> Exported:
    """Write `model` for another runtime, and prove on `pictures` (RGB) that the file answers the same.

    `target` follows from the suffix: .onnx, .xml (OpenVINO, which also writes a .bin beside it) or .pt2
    (`torch.export`). `report` is told what is done and found, a line at a time. Raises ExportError if the file would
    differ by more than `limits`, in which case none is left behind, or its runtime is not installed; ValueError for a
    suffix that does not fit; OSError if the file cannot be written.
    """
    path, form, limits = Path(path), form or Form(), limits or Limits()
    target = check_target(path, target)
    if not pictures:
        raise ValueError("pictures: expected at least one to compare on, got none")
    graph = detector_graph(model, info.preprocessing, form)
    metadata = write_metadata(model.config, info, form)
    with tempfile.TemporaryDirectory(prefix="deformable-detr-") as folder:
        report("exporting, which takes a minute or two")
        written = _write(graph, Path(folder, path.name), target, form, metadata)
        report("comparing with PyTorch")
        session = _open(written, target, graph)
        if session.metadata != metadata:
            raise ExportError(f"{path}: the metadata cannot be read back")
        differences = []
        for case in cases(pictures, info.preprocessing, form):
            differences.append(compare(session, graph, case))
            report(str(differences[-1]))
        worst = next((each for each in differences if not each.is_within(limits)), None)
        if worst is not None:
            raise ExportError(f"{path}: not written, since it differs from PyTorch: {worst}; expected at most "
                              f"{limits.logits:g} and {limits.pixels:g} pixels")
        for part in sorted(Path(folder).iterdir()):     # .bin before .xml
            write_whole(path.with_name(part.name), part.read_bytes())
    return Exported(path, form, differences)


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


def _write(graph: DetectorGraph, path: Path, target: Target, form: Form, metadata: str) -> Path:
    program = export_program(graph, form)
    if target == "torch":
        write_program(program, path, metadata)
    elif target == "onnx":
        write_onnx(program, path, output_names(graph), metadata)
    else:
        with tempfile.TemporaryDirectory(prefix="deformable-detr-") as folder:
            onnx_file = Path(folder, "model.onnx")
            write_onnx(program, onnx_file, output_names(graph), metadata)
            write_openvino(onnx_file, path, metadata)
    return path


def _open(path: Path, target: Target, graph: DetectorGraph) -> Session:
    if target == "torch":
        return TorchSession(path, output_names(graph))
    return OnnxSession(path, "cpu") if target == "onnx" else OpenvinoSession(path, "cpu")
