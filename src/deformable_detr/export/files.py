"""An exported program as a file of each runtime, with what it says about itself."""

import logging
import warnings
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from deformable_detr.export.graph import INPUTS
from deformable_detr.export.metadata import ENTRY, WEIGHTS_ENTRY
from deformable_detr.export.program import short_work_with_shapes
from deformable_detr.export.sessions import ExportError, digest_of, import_runtime

OPSET = 20      # GridSample of images that are not square, with "linear" for bilinear
SCOPES = "pkg.torch.onnx.name_scopes"       # of a node of the exporter: the modules around it, and at last itself
AXES = {"images": ("batch", None, "height", "width"), "sizes": ("batch", None)}


def write_onnx(program: ExportedProgram, path: Path, outputs: list[str], metadata: str) -> None:
    """One file, with the weights inside."""
    import_runtime("onnxscript")
    with _quiet(), short_work_with_shapes():
        exported: Any = torch.onnx.export(program, dynamo=True, input_names=list(INPUTS), output_names=outputs,
                                          opset_version=OPSET, optimize=False, verbose=False)
        _tidy(exported.model)
    _name_axes(exported.model.graph)
    exported.model.metadata_props.clear()       # notes of the exporter, of no use to anybody else
    exported.model.metadata_props[ENTRY] = metadata
    for node in exported.model.graph:
        _name_by_module(node)
        node.metadata_props.clear()             # ... where in the source each node comes from: paths of this machine
    with _naming(path):
        exported.save(path, external_data=False)


def _tidy(model: Any) -> None:
    """Functions inlined, constants computed. The exporter's own rewriting loses a constant of inverse sigmoids."""
    import onnx_ir.passes.common as passes
    from onnxscript.optimizer import fold_constants

    passes.InlinePass()(model)
    fold_constants(model, onnx_shape_inference=True)
    for tidying in (passes.RemoveUnusedNodesPass(), passes.LiftConstantsToInitializersPass(lift_all_constants=True),
                    passes.DeduplicateInitializersPass(), passes.CommonSubexpressionEliminationPass(),
                    passes.RemoveUnusedNodesPass(), passes.RemoveUnusedFunctionsPass(),
                    passes.RemoveUnusedOpsetsPass()):
        tidying(model)


def _name_axes(graph: Any) -> None:
    """Names for the free axes instead of formulas, which reach over lines for the outputs."""
    import onnx_ir

    for value in graph.inputs:
        value.shape = onnx_ir.Shape([axis if name is None or isinstance(axis, int) else name
                                     for axis, name in zip(value.shape, AXES[value.name], strict=True)])
    for value in graph.outputs:
        value.shape = onnx_ir.Shape([axis if isinstance(axis, int) else "batch" if index == 0 else None
                                     for index, axis in enumerate(value.shape)])


def _name_by_module(node: Any) -> None:
    """The name of a node begins with that of the module that it comes from: model.encoder.layers.0.attention/..."""
    scopes = [scope for scope in literal_eval(node.metadata_props.get(SCOPES, "[]"))[:-1] if scope]
    if scopes:
        node.name = f"{scopes[-1]}/{node.name.removeprefix('node_')}"


def write_openvino(onnx_file: Path, path: Path, metadata: str) -> None:
    """`path`, which ends in .xml, and the weights beside it in a file that ends in .bin."""
    openvino = import_runtime("openvino")
    model = openvino.Core().read_model(onnx_file)
    model.set_rt_info(metadata, ENTRY)
    with _naming(path):
        openvino.save_model(model, path, compress_to_fp16=False)
        model.set_rt_info(digest_of(path.with_suffix(".bin")), WEIGHTS_ENTRY)
        openvino.save_model(model, path, compress_to_fp16=False)


def write_program(program: ExportedProgram, path: Path, metadata: str) -> None:
    """PyTorch's own archive (.pt2), which `torch.export.load` reads."""
    with _naming(path):
        torch.export.save(program, path, extra_files={ENTRY: metadata})


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of a writer as one line that names the file: a full disk's name none, or are a trace of C++."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"{path}: cannot be written, first to a temporary folder ({reason})") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on how it optimises."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
