"""An ONNX file in int8: the heavy products of backbone, pyramid and tokens, with ranges taken from real images.

ONNX Runtime's quantiser writes what it rounds as pairs of QuantizeLinear and DequantizeLinear, which ONNX Runtime,
OpenVINO and TensorRT all compute in int8.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from deformable_detr.export.graph import INPUTS
from deformable_detr.export.sessions import ExportError, import_runtime

PRODUCTS = ("Conv", "MatMul", "Gemm")
BETWEEN = ("Add", "Pad")        # of the backbone, which would otherwise go back to float32 from product to product
# By the names of nodes, which begin with those of their modules. Everything else stays in float32: positions,
# references, offsets, the softmax of attention, proposals, queries, and the heads.
BACKBONE = re.compile(r"model\.backbone\.")
TOKENS = re.compile(
    r"model\.pyramid\.projection"
    r"|model\.encoder\.layers\.\d+\.(feed_forward\.(expand|contract)|attention\.(value|output)_projection)/"
    r"|model\.decoder\.layers\.\d+\.cross_attention\.value_projection/")

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Trial:
    """What int8 is calibrated on, and what it may cost."""

    pictures: Iterable[UInt8[np.ndarray, "_ _ 3"]]      # of the kind that the detector will see
    count: Callable[[Path | None], float]       # the AP, in [0, 1], of a file; of the model in float32 for None
    max_ap_loss: float = 0.005


def check_accuracy(path: Path, trial: Trial, report: Callable[[str], None]) -> tuple[float, float]:
    """The AP of the model and of the file at `path`. Raises ExportError if that loses too much."""
    before, after = trial.count(None), trial.count(path)
    told = f"AP {before:.4f} in float32, {after:.4f} in int8"
    report(told)
    if not before - after <= trial.max_ap_loss:
        raise ExportError(f"{path}: not written, since int8 costs too much: {told}; expected to lose at most "
                          f"{trial.max_ap_loss:g}")
    return before, after


def quantise(source: Path, path: Path, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[str]:
    """Write `source`, an ONNX file in float32, in int8 to `path`, and return the names of the nodes that became int8.

    The ranges of activations are those seen in `batches` of (images, sizes).
    """
    import onnx

    import_runtime("onnxruntime")
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    reader: Any = _Reader(batches)      # which needs to be no child of a class of the optional package
    model = onnx.load(source)
    names = quantised_nodes(model)
    with _quiet():
        quantize_static(model, path, reader, quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_quantize=names,
                        op_types_to_quantize=[*PRODUCTS, *BETWEEN], calibrate_method=CalibrationMethod.MinMax,
                        # What goes into the next product is rounded, not what comes out: activations are fused.
                        extra_options={"OpTypesToExcludeOutputQuantization": [*PRODUCTS, *BETWEEN],
                                       "TensorQuantOverrides": _without_zero_points(model, names)})
    return names


def quantised_nodes(model: Any) -> list[str]:
    """The names of the nodes to quantise: products with weights, and what stands between those of the backbone."""
    weights = {each.name for each in model.graph.initializer}
    return [node.name for node in model.graph.node
            if (node.op_type in PRODUCTS and node.input[1] in weights
                and (BACKBONE.match(node.name) or TOKENS.match(node.name)))
            or (node.op_type in BETWEEN and BACKBONE.match(node.name))]


def _without_zero_points(model: Any, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Tokens are rounded around 0: OpenVINO cannot compile a matrix product of a concatenation with a zero point."""
    from onnxruntime.quantization import QuantType

    return {node.input[0]: [{"quant_type": QuantType.QInt8, "symmetric": True}]
            for node in model.graph.node if node.op_type == "MatMul" and node.name in set(names)}


class _Reader:
    """Batches as the quantiser asks for them, one by one."""

    def __init__(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        self._batches: Iterator[tuple[np.ndarray, np.ndarray]] = iter(batches)

    def get_next(self) -> Inputs | None:
        batch = next(self._batches, None)
        return None if batch is None else dict(zip(INPUTS, batch, strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice to optimise the file first, which would lose the names of nodes."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
