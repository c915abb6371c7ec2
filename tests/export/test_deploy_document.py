"""The code in docs/deploy.md does what it says: its Python blocks are taken from there and run."""

import contextlib
import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deformable_detr import Detector
from deformable_detr.images import read_image
from deformable_detr.weights.sources import packaged_images

DOCUMENT = Path(__file__).parents[2] / "docs" / "deploy.md"
FILES = {"model.safetensors": "tiny.safetensors", "model.onnx": "free.onnx", "model.xml": "free.xml",
         "model.bin": "free.bin"}
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


@pytest.fixture(autouse=True)
def folder(exported_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a small detector as the files that the document speaks of, and a photograph."""
    for name, source in FILES.items():
        shutil.copy(exported_files / source, tmp_path / name)
    shutil.copy(packaged_images()[0], tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(heading: str) -> tuple[dict[str, Any], list[str]]:
    """Of the first block of Python under a heading the names that it defines, and the lines that it prints.

    With a threshold of 0, since the detector is not trained.
    """
    _, _, section = DOCUMENT.read_text(encoding="utf-8").partition(f" {heading}\n")
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found, heading
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(found[1].replace('postprocessing["threshold"]', "0"), names)
    return names, printed.getvalue().splitlines()


@pytest.mark.parametrize("runtime", ["ONNX Runtime", "OpenVINO"])
def test_a_runtime_alone_finds_what_the_detector_finds(runtime: str) -> None:
    names, lines = run(f"Python, with {runtime} alone")
    expected = Detector("model.safetensors", "cpu")("photo.jpg", threshold=0)
    assert len(lines) == len(expected)
    assert re.fullmatch(r"(cat|dog|猫) 0\.\d+ \[.*\]", lines[0])
    np.testing.assert_allclose(names["scores"], expected.scores, atol=5e-3)     # resized by another library
    height, width = read_image("photo.jpg").shape[:2]
    best = names["boxes"][0] * [width, height, width, height]
    assert np.abs(expected.boxes - best).max(-1).min() < 2


def test_with_this_package() -> None:
    names, _ = run("Python, with this package")
    assert names["detector"].precision == "bf16"


def test_the_check_of_tensorrt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own arithmetic, with ONNX Runtime in TensorRT's place."""
    stand_in = folder / "bin" / "trtexec"
    stand_in.parent.mkdir()
    stand_in.write_text(TRTEXEC.format(python=sys.executable))
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(stand_in.parent), prepend=":")
    _, lines = run("TensorRT and Core ML")
    assert len(lines) == 2 * len(packaged_images())
    assert not any("TOO FAR" in line for line in lines)
