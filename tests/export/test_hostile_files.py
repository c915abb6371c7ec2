"""Files of strangers given to a detector: one line that names the file, and exit code 2."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from deformable_detr import Detector, ImageBatch, cli
from deformable_detr.detect.exported import ExportedRuntime
from deformable_detr.export import ExportError
from deformable_detr.export.metadata import ENTRY

Captured = pytest.CaptureFixture[str]
Spoil = Callable[[Path], None]


def save(path: Path, model: onnx.ModelProto) -> None:
    path.write_bytes(model.SerializeToString())


def not_ours(path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", values[:1], values[1:])
    save(path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def external(path: Path) -> None:
    """A weight that lies in another file, which is there."""
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    Path("secret.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "secret.bin"), ("offset", "0")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    save(path, model)


def change_entry(path: Path, change: Callable[[dict], object]) -> None:
    model = onnx.load(path)
    entry, = (each for each in model.metadata_props if each.key == ENTRY)
    fields = json.loads(entry.value)
    change(fields)
    entry.value = json.dumps(fields)
    save(path, model)


def other_size(path: Path) -> None:
    change_entry(path, lambda fields: fields["form"].update(size=[480, 640], batch=1))


def other_classes(path: Path) -> None:
    def change(fields: dict) -> None:
        header = fields["header"]
        header["config"] = json.dumps({**json.loads(header["config"]), "num_classes": 5})
        header.update(names=json.dumps(list("abcde")), category_ids="[1, 2, 3, 4, 5]")

    change_entry(path, change)


def without_boxes(path: Path) -> None:
    model = onnx.load(path)
    for output in model.graph.output:
        if output.name == "pred_boxes":
            model.graph.output.remove(output)
            break
    save(path, model)


@pytest.mark.parametrize(("spoil", "message"), [
    (not_ours, "no entry 'deformable_detr' in its metadata: expected a file written by `ddetr export`"),
    (truncated, "its runtime refuses it"),
    (noise, "its runtime refuses it"),
    (empty, "its runtime refuses it"),
    (external, "its runtime refuses it"),
    (other_size, r"input 'images': expected shape \(1, 3, 480, 640\), as its metadata says, got \(None, 3, None"),
    (other_classes, r"output 'logits': expected shape \(batch, queries, 5\), as its metadata says, got"),
    (without_boxes, r"output 'pred_boxes': expected shape \(batch, queries, 4\)"),
])
def test_files_of_strangers(exported_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured,
                            spoil: Spoil, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("model.onnx")
    shutil.copyfile(exported_files / "free.onnx", path)
    spoil(path)
    with pytest.raises(ExportError, match=message) as caught:
        Detector(path, "cpu")
    assert str(caught.value).startswith("model.onnx: ")
    assert len(str(caught.value).splitlines()) == 1
    Image.new("RGB", (40, 30)).save("a.png")
    assert cli.main(["detect", "a.png", "--weights", str(path)]) == 2
    error = capsys.readouterr().err
    assert "model.onnx: " in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1


def test_openvino_without_its_weights(exported_files: Path, tmp_path: Path) -> None:
    shutil.copyfile(exported_files / "free.xml", tmp_path / "free.xml")
    with pytest.raises(ExportError, match=r"free.xml: its runtime refuses it"):
        Detector(tmp_path / "free.xml", "cpu")
    (tmp_path / "free.xml").write_text("<net><!-- nothing --></net>")
    with pytest.raises(ExportError, match=r"free.xml: its runtime refuses it"):
        Detector(tmp_path / "free.xml", "cpu")


def test_a_program_of_torch_is_refused(tmp_path: Path) -> None:
    """Its archive may hold pickles."""
    (tmp_path / "model.pt2").write_bytes(b"PK")
    with pytest.raises(ExportError, match=r"model.pt2: expected a file that ends in .onnx or .xml"):
        Detector(tmp_path / "model.pt2")


def test_devices_and_precisions_that_are_not_there(exported_files: Path) -> None:
    for name in ("free.onnx", "free.xml"):
        with pytest.raises(ValueError, match=r"device: expected auto.* got 'abacus'"):
            Detector(exported_files / name, "abacus")
        with pytest.raises(ValueError, match=r"compile: expected False for .*, which its own runtime compiles"):
            Detector(exported_files / name, compile=True)
    with pytest.raises(ValueError, match=r"precision: expected fp32 or auto.* got 'bf16'"):
        Detector(exported_files / "free.onnx", "cpu", precision="bf16")


def test_openvino_with_the_weights_of_another_export(exported_files: Path, tmp_path: Path) -> None:
    """They fit, and would be silently wrong."""
    shutil.copyfile(exported_files / "free.xml", tmp_path / "free.xml")
    weights = bytearray((exported_files / "free.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "free.bin").write_bytes(weights)
    with pytest.raises(ExportError, match=r"free.bin: expected the weights that free.xml was exported with, got oth"):
        Detector(tmp_path / "free.xml", "cpu")


@pytest.mark.parametrize("content", [b"", b"\x08\x0a", b"text"])
def test_what_is_no_xml_is_read_as_no_other_kind(exported_files: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.xml"
    path.write_bytes(content or (exported_files / "free.onnx").read_bytes())
    with pytest.raises(ExportError, match=r"model.xml: expected XML, as OpenVINO writes it"):
        Detector(path, "cpu")


def test_ports_without_names(exported_files: Path, tmp_path: Path) -> None:
    model = openvino.Core().read_model(exported_files / "free.xml")
    for port in (*model.inputs, *model.outputs):
        port.get_tensor().set_names(set())
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    with pytest.raises(ExportError, match=r"model.xml: its runtime refuses it .*without names"):
        Detector(tmp_path / "model.xml", "cpu")


def test_outputs_of_different_numbers_of_queries(exported_files: Path) -> None:
    runtime = ExportedRuntime(exported_files / "free.onnx", "cpu")
    image = ImageBatch.from_images([torch.zeros(3, 64, 64)])
    session = runtime._session

    class Fewer:
        def run(self, images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
            found = session.run(images, sizes)
            return {**found, "pred_boxes": found["pred_boxes"][:, :-1]}

    runtime._session = Fewer()  # type: ignore[assignment]
    with pytest.raises(ExportError, match="output 'pred_boxes': expected as many queries as in 'logits', "):
        runtime.run(image)
