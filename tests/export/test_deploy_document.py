"""The code in docs/deploy.md does what it says: its Python blocks are taken from there and run."""

import contextlib
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deformable_detr import Detector, build_model
from deformable_detr.detections import Postprocessing
from deformable_detr.export import Form
from deformable_detr.export.exporting import output_names
from deformable_detr.export.files import write_onnx, write_openvino
from deformable_detr.export.metadata import write_metadata
from deformable_detr.export.program import detector_graph, export_program
from deformable_detr.images import read_image
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo, save
from deformable_detr.weights.sources import packaged_images
from helpers.models import TINY

DOCUMENT = Path(__file__).parents[2] / "docs" / "deploy.md"
INFO = ModelInfo(("cat", "dog", "fish"), (1, 2, 3), Preprocessing(size=64, max_size=96),
                 postprocessing=Postprocessing(threshold=0.0))
# What trtexec is asked for, done by ONNX Runtime: outputs as a list in JSON, as its --exportOutput writes them.
TRTEXEC = """#!{python}
import json, sys
import numpy, onnxruntime
given = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:])
paths = dict(pair.split(":") for pair in given["loadInputs"].split(","))
inputs = {{"images": numpy.fromfile(paths["images"], numpy.uint8).reshape(1, 3, 480, 640),
           "sizes": numpy.fromfile(paths["sizes"], numpy.int64).reshape(1, 2)}}
session = onnxruntime.InferenceSession("model.onnx")
outputs = zip(session.get_outputs(), session.run(None, inputs))
json.dump([{{"name": output.name, "dimensions": "x".join(map(str, values.shape)), "values": values.ravel().tolist()}}
           for output, values in outputs], open(given["exportOutput"], "w"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector as the files that the document speaks of, and a photograph."""
    folder = tmp_path_factory.mktemp("deploy")
    torch.manual_seed(0)
    model, form = build_model(TINY).eval(), Form(op="gather")
    save(folder / "model.safetensors", model, INFO)
    graph = detector_graph(model, INFO.preprocessing, form)
    metadata = write_metadata(model.config, INFO, form)
    write_onnx(export_program(graph, form), folder / "model.onnx", output_names(graph), metadata)
    write_openvino(folder / "model.onnx", folder / "model.xml", metadata)
    (folder / "photo.jpg").write_bytes(packaged_images()[0].read_bytes())
    return folder


def block(heading: str) -> str:
    """The first block of Python under a heading."""
    _, _, section = DOCUMENT.read_text(encoding="utf-8").partition(f" {heading}\n")
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found, heading
    return found[1]


def run(heading: str) -> tuple[dict[str, object], list[str]]:
    """The names that the block defines, and the lines that it prints."""
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block(heading), heading, "exec"), names)
    return names, printed.getvalue().splitlines()


@pytest.mark.parametrize("heading", ["Python, with ONNX Runtime alone", "Python, with OpenVINO alone"])
def test_runtimes_alone_find_what_the_detector_finds(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                     heading: str) -> None:
    monkeypatch.chdir(folder)
    names, lines = run(heading)
    expected = Detector("model.safetensors", "cpu")("photo.jpg")
    assert len(lines) == len(expected)
    np.testing.assert_allclose(np.asarray(names["scores"]), expected.scores, atol=5e-3)     # resized by another library
    height, width = read_image("photo.jpg").shape[:2]
    best = np.asarray(names["boxes"])[0] * [width, height, width, height]
    assert np.abs(expected.boxes - best).max(-1).min() < 1


def test_with_this_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names, _ = run("Python, with this package")
    assert isinstance(names["detector"], Detector)
    assert names["detector"].precision == "bf16"


def test_the_check_of_tensorrt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own arithmetic, with ONNX Runtime in TensorRT's place."""
    stand_in = folder / "bin" / "trtexec"
    stand_in.parent.mkdir()
    stand_in.write_text(TRTEXEC.format(python=sys.executable))
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(stand_in.parent), prepend=":")
    monkeypatch.chdir(folder)
    _, lines = run("TensorRT and Core ML")
    assert len(lines) == 2 * len(packaged_images())
    assert not any("TOO FAR" in line for line in lines)
