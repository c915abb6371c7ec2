"""Run with a folder: exported files of small models are written there, for tests of what reads them.

In a process of its own, since the type checker of the tests cannot be traced. `free.onnx` comes from the command line.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from deformable_detr import DeformableDETR, cli
from deformable_detr.export import Form, export
from deformable_detr.export.files import write_openvino
from deformable_detr.export.metadata import write_metadata
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo, save
from helpers.models import TINY, TINY_INFO, small_model

SIZE = (60, 90)     # no multiples of the divisor
INFO = ModelInfo(TINY_INFO.names, TINY_INFO.category_ids, Preprocessing(size=64, max_size=96, divisor=32))
FORMS = {"detr": Form(batch=2, size=SIZE, top_k=5), "two-stage": Form(op="gather", raw=True, batch=2, size=SIZE)}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_all(folder: Path) -> None:
    """tiny.safetensors, and from it free.onnx and free.xml; detr.onnx and two-stage.onnx of one size and batch."""
    torch.manual_seed(0)
    model = DeformableDETR(TINY)
    weights, free = folder / "tiny.safetensors", folder / "free.onnx"
    save(weights, model, INFO)
    with (folder / "printed.txt").open("w") as printed, redirect_stdout(printed):
        code = cli.main(["export", "--weights", str(weights), "--out", str(free)])
    assert code == 0
    write_openvino(free, folder / "free.xml", write_metadata(model.config, INFO, Form()))
    for name, form in FORMS.items():
        export(small_model(name), INFO, folder / f"{name}.onnx", [noise(60, 45), noise(40, 80)], form)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
