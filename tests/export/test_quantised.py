"""Files in int8 and in half precision: what stays in float32, what is measured, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from deformable_detr import cli
from deformable_detr.detect import trial as trials
from deformable_detr.export import ExportError, Form, Trial, export, exporting
from deformable_detr.export.agreement import agreement
from deformable_detr.export.cases import Case, calibration_batches, case_of, cases
from deformable_detr.export.exporting import output_names
from deformable_detr.export.files import write_onnx
from deformable_detr.export.graph import DetectorGraph
from deformable_detr.export.metadata import read_metadata, write_metadata
from deformable_detr.export.program import detector_graph, export_program, lowered
from deformable_detr.export.quantising import PRODUCTS, quantise
from deformable_detr.export.sessions import OnnxSession
from deformable_detr.model.network import Network
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo, save
from helpers.models import small_model

INFO = ModelInfo(("Platelets", "RBC", "WBC"), (1, 2, 3), Preprocessing(size=64, max_size=96))
INT8 = Form(size=(64, 96), batch=1, precision="int8")
FP16 = Form(size=(64, 96), batch=1, precision="fp16")
INT8_PARTS = ("model.backbone", "model.pyramid", "model.encoder.layers.0.feed_forward", "value_projection")
FLOAT32 = ("sampling_offsets", "attention_weights", "self_attention", "heads", "classify", "locate")
BLOOD_CELLS = Path(__file__).parents[1] / "fixtures" / "bccd"


@pytest.fixture(scope="module")
def model() -> Network:
    """Without training every query sees something of every class."""
    found = small_model("multi-scale", num_decoder_layers=1)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.endswith("classify.bias"):
                parameter.zero_()
    return found


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (48 + 16 * index, 80, 3), dtype=np.uint8) for index in range(2)]


@pytest.fixture(scope="module")
def graph(model: Network) -> DetectorGraph:
    return detector_graph(model, INFO.preprocessing, INT8)


@pytest.fixture(scope="module")
def float32(model: Network, graph: DetectorGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that int8 is made of."""
    path = tmp_path_factory.mktemp("float32") / "float32.onnx"
    write_onnx(export_program(graph, INT8), path, output_names(graph), write_metadata(model.config, INFO, INT8))
    return path


@pytest.fixture
def exported_before(float32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`export` finds the file in float32 as it would write it, which takes most of the time."""
    monkeypatch.setattr(exporting, "_write", lambda graph, path, *others: shutil.copyfile(float32, path))


def trial(after: float, pictures: list[np.ndarray]) -> Trial:
    return Trial(pictures, lambda path: 0.5 if path is None else after)


def sources(path: Path) -> Callable[[str], list[str]]:
    """The operators that make the first two inputs of the products whose module has a name in it."""
    model = onnx.load(path)
    makers = {output: node.op_type for node in model.graph.node for output in node.output}

    def of(name: str) -> list[str]:
        products = [node for node in model.graph.node if node.op_type in PRODUCTS and name in node.name]
        assert products, name
        return [makers.get(each, "") for node in products for each in node.input[:2]]

    return of


def test_products_of_the_backbone_and_of_tokens_are_in_int8_and_sensitive_ones_are_not(
        float32: Path, graph: DetectorGraph, pictures: list[np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    batches = list(calibration_batches(pictures, INFO.preprocessing, INT8))
    quantise(float32, path, ((case.images.numpy(), case.sizes.numpy()) for case in batches))
    makers = sources(path)
    for name in INT8_PARTS:
        assert set(makers(name)) == {"DequantizeLinear"}, name
    for name in FLOAT32:
        assert "DequantizeLinear" not in makers(name), name
    found = agreement(OnnxSession(path, "cpu"), graph, batches)
    assert found.found > 0.8 * found.expected > 0
    assert path.stat().st_size < 0.8 * float32.stat().st_size


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
@pytest.mark.usefixtures("exported_before")
def test_a_file_in_int8_says_so_and_what_it_costs(name: str, model: Network, pictures: list[np.ndarray],
                                                  tmp_path: Path) -> None:
    lines: list[str] = []
    exported = export(model, INFO, tmp_path / name, pictures, INT8, trial=trial(0.496, pictures), report=lines.append)
    assert exported.ap == (0.5, 0.496)
    assert "AP 0.5000 in float32, 0.4960 in int8" in lines
    assert exported.agreement is not None
    assert exported.agreement.expected > 0
    from deformable_detr import Detector

    detector = Detector(tmp_path / name)
    assert detector.precision == "int8"
    assert len(detector(pictures[0], threshold=0.1))


@pytest.mark.usefixtures("exported_before")
def test_what_costs_too_much_is_not_left_behind(model: Network, pictures: list[np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"model\.onnx: not written, since int8 costs too much: AP 0\.5000 .* 0\.005"):
        export(model, INFO, tmp_path / "model.onnx", pictures, INT8, trial=trial(0.49, pictures))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("exported_before")
def test_the_command_line_ends_with_one(model: Network, pictures: list[np.ndarray], tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "weights.safetensors", model, INFO)
    monkeypatch.setattr(trials, "int8_trial", lambda *arguments: trial(0.49, pictures))
    out = tmp_path / "model.onnx"
    assert cli.main(["export", "--weights", str(tmp_path / "weights.safetensors"), "--out", str(out), "--size", "64x96",
                     "--batch", "1", "--precision", "int8", "--data", str(BLOOD_CELLS)]) == 1
    assert "int8 costs too much" in capsys.readouterr().err
    assert not out.exists()


def test_a_trial_reads_both_splits(model: Network) -> None:
    from deformable_detr import Detector

    found = trials.int8_trial(Detector.from_model(model, INFO), BLOOD_CELLS, 0.005)
    assert all(picture.shape[2] == 3 for picture in found.pictures)
    assert 0 <= found.count(None) <= 1


@pytest.mark.parametrize(("path", "precision", "message"), [
    ("model.onnx", "int8", "data: expected a data set"),
    ("model.pt2", "int8", "precision: expected fp32, bf16 or fp16 for .pt2, got int8"),
    ("model.onnx", "bf16", "ONNX Runtime has no products in bf16"),
    ("model.xml", "bf16", "OpenVINO computes a file of fp32 in bf16 if asked"),
])
def test_a_precision_that_does_not_fit_is_one_line(path: str, precision: Any, message: str, model: Network,
                                                   pictures: list[np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        export(model, INFO, tmp_path / path, pictures, Form(precision=precision))
    assert not list(tmp_path.iterdir())


def test_half_precision_has_the_islands_of_inference(model: Network, graph: DetectorGraph, pictures: list[np.ndarray],
                                                     tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    metadata = write_metadata(model.config, INFO, FP16)
    write_onnx(export_program(lowered(graph, FP16), FP16), path, output_names(graph), metadata)
    stored = onnx.load(path)
    types = {each.name: each.data_type for each in stored.graph.initializer}
    for node in stored.graph.node:
        if node.op_type in PRODUCTS and node.input[1] in types:
            is_half = types[node.input[1]] == onnx.TensorProto.FLOAT16
            heavy = node.name.startswith(("model.backbone", "model.pyramid", "model.encoder"))
            assert is_half == (heavy or "value_projection" in node.name or "output_projection" in node.name), node.name
    session = OnnxSession(path, "cpu")
    assert session.metadata is not None
    assert read_metadata(session.metadata)[2].precision == "fp16"
    found = agreement(session, graph, list(cases(pictures, INFO.preprocessing, FP16)))
    assert found.found == found.expected > 0
    assert found.mean < 1


def test_agreement_counts_what_moved_and_what_is_missing(graph: DetectorGraph, pictures: list[np.ndarray]) -> None:
    case = case_of([(pictures[0], INFO.preprocessing)], INT8)
    same = Shifted(graph, case, 0.0)
    assert (agreement(same, graph, [case]).largest, agreement(same, graph, [case]).mean) == (0, 0)
    moved = agreement(Shifted(graph, case, 0.01), graph, [case])
    assert moved.mean > 0
    lost = agreement(Shifted(graph, case, 0.0, logit=-20), graph, [case])
    assert lost.found == 0 < lost.expected


def test_nothing_to_compare_on_is_an_error(pictures: list[np.ndarray]) -> None:
    blind = detector_graph(small_model("multi-scale"), INFO.preprocessing, INT8)
    case = case_of([(pictures[0], INFO.preprocessing)], INT8)
    with pytest.raises(ValueError, match="pictures: expected some in which the model finds"):
        agreement(Shifted(blind, case, 0.0), blind, [case])


class Shifted:
    """A file whose boxes and logits are off by a little."""

    metadata = None

    def __init__(self, graph: DetectorGraph, case: Case, shift: float, logit: float = 0.0) -> None:
        with torch.no_grad():
            logits, boxes = graph(case.images, case.sizes)[:2]
        self._found = {"logits": (logits + logit).numpy(), "pred_boxes": (boxes + shift).numpy()}

    def run(self, images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        return self._found
