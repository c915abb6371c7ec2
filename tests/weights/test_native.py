import copy
import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deformable_detr.detections import Postprocessing
from deformable_detr.files import write_whole
from deformable_detr.model.folding import fold_batch_norm
from deformable_detr.papers import DeformableDETR, ModelConfig
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import ImageBatch
from deformable_detr.weights import ModelInfo, WeightsError, load, save

TINY = ModelConfig(backbone="test_resnet", width=32, num_heads=2, num_points=2, num_encoder_layers=1,
                   num_decoder_layers=2, ffn_width=32, num_queries=10, num_classes=3)
INFO = ModelInfo(("cat", "Größe", "猫"), (1, 17, 90),
                 Preprocessing(size=320, max_size=480, mean=(0.5, 0.25, 0.125), divisor=32),
                 {"license": "MIT", "command": "ddetr train 'a \"b\"'"}, Postprocessing(0.25, 0.7))


@pytest.fixture(scope="module")
def model() -> DeformableDETR:
    torch.manual_seed(0)
    return DeformableDETR(TINY).eval()


@pytest.fixture
def saved(model: DeformableDETR, tmp_path: Path) -> Path:
    save(tmp_path / "model.safetensors", model, INFO)
    return tmp_path / "model.safetensors"


def changed(path: Path, **entries: object) -> Path:
    """The same file with other entries in its header; None leaves one out."""
    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
    for name, value in entries.items():
        header[name] = value if isinstance(value, str) else json.dumps(value)
    header = {name: value for name, value in header.items() if value != "null"}
    save_file(load_file(path), path.with_name("changed.safetensors"), header)
    return path.with_name("changed.safetensors")


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        load(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_what_is_saved_is_loaded(model: DeformableDETR, saved: Path) -> None:
    again, info = load(saved)
    assert info == INFO
    assert again.config == TINY
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    batch = ImageBatch.from_images([torch.rand(3, 64, 96)])
    assert torch.equal(again(batch).boxes, model(batch).boxes)


def test_the_file_explains_itself(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        header = file.metadata()
    assert header["format"] == "deformable-detr"
    assert json.loads(header["config"])["backbone"] == "test_resnet"
    assert json.loads(header["names"]) == list(INFO.names)
    assert json.loads(header["preprocessing"])["size"] == 320


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_disk_is_float32_in_memory(model: DeformableDETR, tmp_path: Path,
                                                     dtype: torch.dtype) -> None:
    path = tmp_path / "a new folder" / "half.safetensors"
    save(path, model, INFO, dtype=dtype)
    assert {tensor.dtype for tensor in load_file(path).values()} == {dtype}
    for name, tensor in load(path)[0].state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, model.state_dict()[name].to(dtype).float(), rtol=0, atol=0)


def test_an_older_file_survives_a_failed_save(model: DeformableDETR, saved: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(saved, model, replace(INFO, names=("a", "b", "c")))
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_what_cannot_be_saved_is_refused(model: DeformableDETR, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 3, one a class of the model, got 1"):
        save(tmp_path / "m.safetensors", model, ModelInfo(("cat",), (1,)))
    with pytest.raises(ValueError, match=r"dtype: expected one of .* got torch.float64"):
        save(tmp_path / "m.safetensors", model, INFO, dtype=torch.float64)
    assert not list(tmp_path.iterdir())


def test_a_folded_model_is_not_saved(model: DeformableDETR, tmp_path: Path) -> None:
    folded = copy.deepcopy(model)
    folded.backbone.net = fold_batch_norm(folded.backbone.net)
    with pytest.raises(ValueError, match="tensors missing: backbone"):
        save(tmp_path / "m.safetensors", folded, INFO)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e38])
def test_weights_that_cannot_be_computed_with_are_named(model: DeformableDETR, saved: Path, value: float) -> None:
    name = "encoder.layers.0.attention.value_projection.weight"
    tensors = load_file(saved)
    tensors[name][3, 5] = value
    with safe_open(saved, framework="pt") as file:
        save_file(tensors, saved, file.metadata())
    assert f"tensor {name}: expected finite numbers up to 1e+18" in refusal(saved)
    broken = copy.deepcopy(model)
    broken.load_state_dict(tensors)
    before = saved.read_bytes()
    with pytest.raises(ValueError, match=f"tensor {name}: expected finite numbers"):
        save(saved, broken, INFO)
    assert saved.read_bytes() == before


@pytest.mark.parametrize("label", ["I32", "U32"])
def test_floats_relabelled_as_integers_are_named(saved: Path, label: str) -> None:
    name = "decoder.heads.shared.classify.bias"
    content = saved.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    header[name]["dtype"] = label
    written = json.dumps(header).encode()
    saved.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + length:])
    assert f"tensors of another type: {name} (expected F32 or F16 or BF16, got {label})" in refusal(saved)


def test_a_tensor_under_two_names_is_refused(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        header = file.metadata()
    both = {"queries.content.weight": torch.zeros(1), "queries.embedding.content.weight": torch.zeros(1)}
    save_file({**load_file(saved), **both}, saved, header)
    assert "under a former name and today's: queries.content.weight" in refusal(saved)


@pytest.mark.parametrize(("names", "category_ids"), [
    (("a", "b"), (1,)), (("a",), (1, 2)), (("a", "b"), (3, 3))])
def test_info_that_does_not_fit_is_refused(names: tuple, category_ids: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        ModelInfo(names, category_ids)


def test_foreign_files_are_refused(tmp_path: Path, saved: Path) -> None:
    path = tmp_path / "weights"
    assert "no such file" in refusal(path)
    assert "folder" in refusal(tmp_path)
    for content in (b"", b"text", b"{" * 1000, saved.read_bytes()[:-10], saved.read_bytes()[:100],
                    b"\xff" * 7 + b"\x7f{}"):
        path.write_bytes(content)
        assert "not a safetensors file, or a damaged one" in refusal(path)
    torch.save({"model": {}}, path)
    assert "a PyTorch checkpoint, which read_any(path)" in refusal(path)
    save_file({"weight": torch.zeros(2)}, path, {"format": "pt"})
    assert "not written by deformable-detr" in refusal(path)
    save_file({"weight": torch.zeros(2)}, path)
    assert "not written by deformable-detr" in refusal(path)


@pytest.mark.parametrize(("entries", "message"), [
    ({"format_version": "2"}, "format version '2', this release reads 1: upgrade"),
    ({"format_version": "new"}, "format version 'new'"),
    ({"config": {"widht": 32}}, "unknown field 'widht'; did you mean 'width'?"),
    ({"config": {"width": "32"}}, "width"),
    ({"config": "{"}, "'config' is not JSON"),
    ({"config": "[" * 100_000}, "'config' is not JSON"),
    ({"config": None}, "no entry 'config'"),
    ({"config": [1]}, "malformed header"),
    ({"names": ["cat", "dog"]}, "expected one of each a class, got 2 and 3"),
    ({"names": 5}, "malformed header"),
    ({"category_ids": [1, 2, "3"]}, "category_ids"),
    ({"category_ids": [1, 2, 2]}, "a different id for each class"),
    ({"names": ["cat"], "category_ids": [1]}, "expected 3, one a class of the model, got 1"),
    ({"preprocessing": {"size": 320}}, "malformed header"),
    ({"preprocessing": {"mean": [0, 0, 0], "deviation": [1, 1, 1], "sise": 320}}, "malformed header"),
    ({"preprocessing": {"mean": [0, 0, 0], "deviation": [1, 1, 1], "size": "320"}},
     "preprocessing: expected int only"),
    ({"preprocessing": {"mean": [0, 0], "deviation": [1, 1, 1]}}, "preprocessing: mean: expected 3 numbers"),
    ({"preprocessing": {"mean": [0, 0, "0"], "deviation": [1, 1, 1]}}, "preprocessing: mean: expected 3 numbers"),
    ({"preprocessing": {"mean": [0, 0, 0], "deviation": [1, 1, 0]}}, "deviation: expected at least 1e-06"),
    ({"preprocessing": {"mean": [0, 0, 0], "deviation": [1, 1, 1e-320]}}, "deviation: expected at least 1e-06"),
    ({"preprocessing": {"mean": [1e308, 0, 0], "deviation": [1, 1, 1]}}, "mean: expected 3 numbers up to 1000"),
    ({"preprocessing": '{"mean": [NaN, 0, 0], "deviation": [1, 1, 1]}'}, "mean: expected 3 numbers up to 1000"),
    ({"preprocessing": '{"mean": [0, 0, 0], "deviation": [1, Infinity, 1]}'}, "preprocessing: deviation: expected 3"),
    ({"preprocessing": {"mean": [10**400, 0, 0], "deviation": [1, 1, 1]}}, "preprocessing: mean: int too large"),
    ({"preprocessing": {"mean": [0, 0, 0], "deviation": [1, 1, 1], "size": 10**6, "max_size": 10**6}},
     "preprocessing: size: expected at most 4096 pixels, got 1000000"),
    ({"preprocessing": {"mean": [0, 0, 0], "deviation": [1, 1, 1], "divisor": 8192}},
     "preprocessing: divisor: expected at most 512 pixels, got 8192"),
    ({"names": ["cat", "d\x1b[2Jog", "bird"]}, "names: expected no control characters, got 'd\\x1b[2Jog'"),
    ({"provenance": {"license": 5}}, "provenance"),
])
def test_headers_that_do_not_fit_are_refused(saved: Path, entries: dict, message: str) -> None:
    assert message in refusal(changed(saved, **entries))


@pytest.mark.parametrize(("change", "message"), [
    ({"num_decoder_layers": 3}, "tensors missing: decoder.layers.2."),
    ({"num_decoder_layers": 1}, "tensors unexpected: decoder.layers.1."),
    ({"num_queries": 11}, "queries.embedding.weight (expected (11, 64), got (10, 64))"),
    ({"num_queries": 10**10}, "tensors of another shape"),
    ({"width": 32 * 10**5}, "tensors of another shape"),
    ({"num_encoder_layers": 10**9}, "more layers than"),
    ({"num_levels": 10**9}, "more layers than"),
    ({"backbone": "no_such_net"}, "no model named 'no_such_net'"),
    ({"backbone": "test_vit"}, "no model can be built"),
])
def test_a_config_that_does_not_fit_its_tensors_is_refused(saved: Path, change: dict, message: str) -> None:
    with safe_open(saved, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
    assert message in refusal(changed(saved, config={**config, **change}))


def test_a_full_disk_is_reported_with_the_files_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: ") as raised:
        write_whole(saved, b"new")
    assert raised.value.errno == errno.ENOSPC
    assert str(saved) in str(raised.value)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
