"""What is exported is proven: a planted fault, mistakes of a call, what cannot be written; `ddetr export`."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deformable_detr import Detector, cli
from deformable_detr.export import ExportError, Form, exporting
from helpers.export_files import noise

Captured = pytest.CaptureFixture[str]
Plant = Callable[[Path], None]
BIAS = np.log(0.01 / 0.99)      # of every class at the start
PICTURES = [noise(60, 45), noise(40, 80)]


@pytest.fixture
def detector(exported_files: Path) -> Detector:
    return Detector(exported_files / "tiny.safetensors", "cpu")


@pytest.fixture
def written(exported_files: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Has `export` take this file for what it has just written, which would take long."""
    def take(path: Path) -> None:
        def write(_graph: Any, target: Path, *_: Any) -> None:
            shutil.copyfile(path, target)

        monkeypatch.setattr(exporting, "_write", write)

    take(exported_files / "free.onnx")
    return take


def class_biases(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [weight for weight in model.graph.initializer
            if tuple(weight.dims) == (3,) and np.allclose(numpy_helper.to_array(weight), BIAS, atol=1e-3)]


@pytest.fixture
def faulty(exported_files: Path, tmp_path: Path) -> Path:
    """The exported model with one wrong constant: the bias of a class."""
    model = onnx.load(exported_files / "free.onnx")
    for bias in class_biases(model):
        values = numpy_helper.to_array(bias) + np.array([0, 0.01, 0], np.float32)
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    path = tmp_path / "faulty" / "model.onnx"
    path.parent.mkdir()
    onnx.save(model, path)
    return path


def test_the_command(exported_files: Path) -> None:
    """As it was run, to its end, in a process of its own."""
    first, second, *compared, last = (exported_files / "printed.txt").read_text().splitlines()
    assert first.startswith("exporting")
    assert second == "comparing with PyTorch"
    assert len(compared) == 9       # each packaged image at two sizes, and three of them together
    pattern = r"batch of \d: (\d+x\d+(, )?)+: logits differ by \d\.\de-\d\d, boxes by \d\.\de[+-]\d\d pixels"
    assert all(re.fullmatch(pattern, line) for line in compared), compared
    assert compared[-1].startswith("batch of 3: ")
    assert re.search(r"free.onnx: deformable-detr, \d+\.\d MB; boxes within .* of PyTorch's in 9 batches$", last)


def test_what_is_exported_is_compared(detector: Detector, written: Plant, tmp_path: Path) -> None:
    lines: list[str] = []
    exported = detector.export(tmp_path / "new" / "model.onnx", pictures=PICTURES, report=lines.append)
    assert exported.path.is_file()
    assert len(exported.differences) == 5
    assert lines[2:] == [str(each) for each in exported.differences]
    assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"]


def test_a_planted_fault_is_caught(detector: Detector, written: Plant, faulty: Path, tmp_path: Path,
                                   capsys: Captured, exported_files: Path) -> None:
    """A bias that is off by 0.01: no file is left, and one that was there before stays."""
    written(faulty)
    path = tmp_path / "out" / "model.onnx"
    with pytest.raises(ExportError, match=r"model.onnx: not written, since it differs from PyTorch: batch of 1: .* "
                                          r"logits differ by 1.0e-02, .*; expected at most 0.001 and 0.1 pixels"):
        detector.export(path, pictures=PICTURES)
    assert not path.parent.exists()
    weights = str(exported_files / "tiny.safetensors")
    assert cli.main(["export", "--weights", weights, "--out", str(path), "--quiet"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "not written, since it differs from PyTorch" in output.err
    assert len(output.err.splitlines()) == 1
    assert not path.parent.exists()
    path.parent.mkdir()
    former = (exported_files / "free.onnx").read_bytes()
    path.write_bytes(former)
    assert cli.main(["export", "--weights", weights, "--out", str(path)]) == 1
    assert path.read_bytes() == former


@pytest.mark.parametrize(("there", "out"), [("photo.xml", "photo.xml"), ("photo.bin", "photo.xml"),
                                            ("model.onnx", "model.onnx"), ("model.pt2", "model.pt2")])
def test_what_no_export_has_written_stays(there: str, out: str, exported_files: Path, tmp_path: Path,
                                          capsys: Captured) -> None:
    text = "<annotation><path>deformable_detr/a.jpg</path></annotation>"
    (tmp_path / there).write_text(text)
    weights = str(exported_files / "tiny.safetensors")
    assert cli.main(["export", "--weights", weights, "--out", str(tmp_path / out)]) == 2
    assert f"{tmp_path / there}: expected a new file" in capsys.readouterr().err
    assert (tmp_path / there).read_text() == text
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_of_another_code_base_stays(detector: Detector, exported_files: Path, tmp_path: Path) -> None:
    """Others have a module of our name, and exporters write the names of modules into a file."""
    model, path = onnx.load(exported_files / "free.onnx"), tmp_path / "model.onnx"
    del model.metadata_props[:]
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "namespace", "transformers.models.deformable_detr.modeling_deformable_detr"
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"model.onnx: expected a new file, or one that an export has written"):
        detector.export(path, pictures=PICTURES)


@pytest.fixture
def pair(exported_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `export` take the files of OpenVINO for those that it has just written."""
    def write(_graph: Any, path: Path, *_: Any) -> None:
        for suffix in (".xml", ".bin"):
            shutil.copyfile(exported_files / f"free{suffix}", path.with_suffix(suffix))

    monkeypatch.setattr(exporting, "_write", write)


@pytest.mark.usefixtures("pair")
def test_both_files_of_openvino_are_replaced_or_none(detector: Detector, tmp_path: Path) -> None:
    for name in ("model.xml", "LARGE.XML"):
        path = tmp_path / name
        for _ in range(2):      # the second time in the place of the first
            detector.export(path, pictures=PICTURES)
        Detector(path, "cpu")
        weights = path.with_suffix(".bin")
        weights.write_bytes(b"mine")
        with pytest.raises(ValueError, match=r"\.bin: expected a new file, or the weights of .*\.(xml|XML)$"):
            detector.export(path, pictures=PICTURES)
        assert weights.read_bytes() == b"mine"
    link, folder = tmp_path / "link.xml", tmp_path / "folder"
    folder.mkdir()
    link.symlink_to(folder / "elsewhere.xml")
    with pytest.raises(OSError, match="expected a regular file or none, got a link"):
        detector.export(link, pictures=PICTURES)
    assert not link.with_suffix(".bin").exists()
    assert not list(folder.iterdir())


def test_answers_that_are_not_finite_are_a_fault(detector: Detector, written: Plant, exported_files: Path,
                                                 tmp_path: Path) -> None:
    model, faulty = onnx.load(exported_files / "free.onnx"), tmp_path / "faulty.onnx"
    for bias in class_biases(model):
        bias.CopyFrom(numpy_helper.from_array(np.full(3, np.nan, np.float32), bias.name))
    onnx.save(model, faulty)
    written(faulty)
    with pytest.raises(ExportError, match="logits differ by nan"):
        detector.export(tmp_path / "model.onnx", pictures=PICTURES)
    assert not (tmp_path / "model.onnx").exists()


def test_metadata_that_cannot_be_read_back_are_a_fault(detector: Detector, written: Plant, exported_files: Path,
                                                       tmp_path: Path) -> None:
    written(exported_files / "detr.onnx")
    with pytest.raises(ExportError, match=r"model\.onnx: the metadata cannot be read back"):
        detector.export(tmp_path / "model.onnx", pictures=PICTURES)
    assert not (tmp_path / "model.onnx").exists()


def test_a_file_that_its_runtime_refuses_is_named_as_it_was_asked_for(detector: Detector, written: Plant,
                                                                      tmp_path: Path) -> None:
    broken, path = tmp_path / "broken.onnx", tmp_path / "model.onnx"
    broken.write_bytes(b"\0 no model")
    written(broken)
    with pytest.raises(ExportError, match=f"^{re.escape(str(path))}: its runtime refuses it"):
        detector.export(path, pictures=PICTURES)
    assert not path.exists()


@pytest.mark.parametrize(("path", "target", "message"), [
    ("model.txt", None, "path: expected a name that ends in .onnx, .xml, .pt2, got .*model.txt"),
    ("model", None, "path: expected a name that ends in .onnx, .xml, .pt2"),
    ("model.xml", "onnx", "path: expected a name that ends in .onnx, got .*model.xml"),
    ("model.onnx", "torch", "path: expected a name that ends in .pt2, got .*model.onnx"),
])
def test_suffixes_that_do_not_fit(detector: Detector, tmp_path: Path, path: str, target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detector.export(tmp_path / path, target=target)


def test_nothing_to_compare_on(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pictures: expected at least one to compare on, got none"):
        detector.export(tmp_path / "model.onnx", pictures=[])


@pytest.mark.parametrize(("changes", "message"), [
    ({"batch": 0}, "batch: expected a whole number from 1 to 8192, got 0"),
    ({"size": (0, 10)}, r"size: expected \(height, width\) of 1 to 8192 pixels, got \(0, 10\)"),
    ({"top_k": 0}, "top_k: expected a whole number of at least 1, got 0"),
])
def test_forms_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Form(**changes)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--out", "model.txt"], "--out: expected a name that ends in .onnx, .xml, .pt2, got model.txt"),
    (["--out", "model.xml", "--to", "onnx"], "--out: expected a name that ends in .onnx, got model.xml"),
    (["--size", "48"], "--size: expected HEIGHTxWIDTH in pixels, such as 480x640, got '48'"),
    (["--size", "axb"], "--size: expected HEIGHTxWIDTH"),
    (["--size", "1x2x3"], "--size: expected HEIGHTxWIDTH"),
    (["--size=-1x5"], "--size: expected HEIGHTxWIDTH"),
    (["--size", "999999x5"], "--size: expected HEIGHTxWIDTH"),
    (["--size", "0x10"], "size: expected (height, width) of 1 to 8192 pixels, got (0, 10)"),
    (["--batch", "0"], "batch: expected a whole number from 1 to 8192, got 0"),
    (["--top-k", "0"], "top_k: expected a whole number of at least 1, got 0"),
    (["--op", "magic"], "--op"),
    (["--pictures", "absent"], "absent"),
    (["--out", "file/model.onnx"], "file"),
])
def test_wrong_calls(exported_files: Path, written: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                     capsys: Captured, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no folder")
    assert cli.main(["export", "--weights", str(exported_files / "tiny.safetensors"), "--quiet", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_runtime_that_is_not_installed(detector: Detector, written: Plant, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match="onnxruntime is not installed; expected the extra `export`: pip install"):
        detector.export(tmp_path / "model.onnx", pictures=PICTURES)
    assert not (tmp_path / "model.onnx").exists()


def test_an_exported_file_is_not_exported_again(exported_files: Path, tmp_path: Path, capsys: Captured) -> None:
    file = exported_files / "free.onnx"
    with pytest.raises(ValueError, match="weights: expected a model of PyTorch"):
        Detector(file, "cpu").export(tmp_path / "model.onnx")
    assert cli.main(["export", "--weights", str(file), "--out", str(tmp_path / "model.onnx")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
