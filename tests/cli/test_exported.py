"""Commands that are given an exported file for weights."""

import json
from pathlib import Path

import pytest
from PIL import Image

from deformable_detr import cli
from helpers.export_files import noise
from helpers.written_data import WriteData

Captured = pytest.CaptureFixture[str]
FILES = ("free.onnx", "free.xml")


def printed(capsys: Captured, *arguments: str) -> dict:
    assert cli.main([*arguments, "--json", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return json.loads(output.out)


@pytest.mark.parametrize("name", FILES)
def test_detect(exported_files: Path, folder: Path, capsys: Captured, name: str) -> None:
    Image.fromarray(noise(60, 45)).save("a.png")
    results = [printed(capsys, "detect", "a.png", "--weights", str(exported_files / file), "--threshold", "0")
               for file in ("tiny.safetensors", name)]
    right, found = (result["detections"] for result in results)
    assert len(found) == len(right) == 60
    for one, other in zip(found, right, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)
        assert one["name"] in ("cat", "dog", "猫")


@pytest.mark.parametrize("name", FILES)
def test_eval(exported_files: Path, write_data: WriteData, capsys: Captured, name: str) -> None:
    data = str(write_data("train", categories=[{"id": 20, "name": "cat"}, {"id": 5, "name": "dog"}]))
    right, found = (printed(capsys, "eval", data, "--weights", str(exported_files / file))
                    for file in ("tiny.safetensors", name))
    assert found.keys() == right.keys()
    assert found["AP"] == pytest.approx(right["AP"], abs=1e-3)


def test_what_an_exported_file_cannot_do(exported_files: Path, folder: Path, capsys: Captured) -> None:
    Image.fromarray(noise(60, 45)).save("a.png")
    weights = str(exported_files / "free.onnx")
    for command in (["explain", "a.png"], ["trace", "a.png"]):
        assert cli.main([*command, "--weights", weights]) in (1, 2)
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert "Traceback" not in error
