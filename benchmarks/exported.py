"""A detector of `transformers`, exported to ONNX and run by OpenVINO: the peer on a CPU."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OPSET = 16   # later ones may sample by GridSample-20, which some runtimes read otherwise
HINTS = {"fp32": "f32", "bf16": "bf16"}


class Outputs(nn.Module):
    """The model with tensors in and out, as an exporter wants it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model(pixel_values=pixels, pixel_mask=mask)
        return found.logits, found.pred_boxes


def looking_with_openvino(model: Any, image: Tensor,
                          precision: str = "fp32") -> Callable[[], tuple[Tensor, Tensor]] | None:
    """The model, exported in float32, on this image with torch's number of threads; None without OpenVINO."""
    try:
        import openvino
    except ImportError:
        return None
    inputs = image[None], torch.ones(1, *image.shape[1:], dtype=torch.long)
    settings = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")   # tracing says what it takes for constant, which here it is
        file = Path(folder, "model.onnx")
        torch.onnx.export(Outputs(model), inputs, str(file), opset_version=OPSET, dynamo=False)
        compiled = openvino.Core().compile_model(file, "CPU", settings)
    arrays = [tensor.numpy() for tensor in inputs]

    def look() -> tuple[Tensor, Tensor]:
        found = compiled(arrays)
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    return look
