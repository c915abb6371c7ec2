"""Checkpoints of other code bases as models, and hostile or damaged ones: one line each, in bounded time and memory."""

import argparse
import json
import os
import pickle
import re
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import save_file

from deformable_detr.cli import main
from deformable_detr.training.origin import read_origin
from deformable_detr.training.start import Start
from deformable_detr.weights import ModelInfo, WeightsError, read_any, save_foreign, to_official
from deformable_detr.weights.coco import CLASSES
from deformable_detr.weights.dialects import convert
from helpers.models import small_model

INFO = ModelInfo(("cat", "dog", "eel"), (0, 1, 2))
SIZES: dict[str, Any] = {"backbone": "resnet18", "num_heads": 8, "num_classes": 3}


@pytest.mark.parametrize("preset", ["multi-scale", "refine", "two-stage", "single-scale"])
def test_a_published_checkpoint_is_a_model(preset: str, tmp_path: Path) -> None:
    model = small_model(preset, **SIZES, num_queries=300)
    torch.save({"model": to_official(model.state_dict(), model.config), "epoch": 49, "lr": np.float64(2e-4)},
               tmp_path / "checkpoint.pth")
    found, info = read_any(tmp_path / "checkpoint.pth")
    assert found.config.refine == model.config.refine
    assert info.dialect == "published"
    assert info.names == ("0", "1", "2")
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("num_classes", "names"), [(91, ("N/A", "person")), (80, ("person", "bicycle"))])
def test_the_classes_of_coco(num_classes: int, names: tuple[str, ...], tmp_path: Path) -> None:
    model = small_model("multi-scale", **{**SIZES, "num_classes": num_classes})
    save_foreign(tmp_path / "a.pth", model, ModelInfo(tuple(map(str, range(num_classes))), tuple(range(num_classes))),
                 "detrex")
    _, info = read_any(tmp_path / "a.pth")
    assert info.names[:2] == names
    assert dict(zip(info.category_ids, info.names, strict=True)) | CLASSES == dict(
        zip(info.category_ids, info.names, strict=True))


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    model = small_model("two-stage", **SIZES)
    save_file({key: value.half().clone() if value.is_floating_point() else value
               for key, value in to_official(model.state_dict()).items()}, tmp_path / "half.safetensors")
    found, _ = read_any(tmp_path / "half.safetensors")
    assert {value.dtype for value in found.parameters()} == {torch.float32}


def test_records_of_mmengine_are_left_out(tmp_path: Path) -> None:
    """What MMDetection's own class pickles, without that class."""
    class HistoryBuffer:
        def __init__(self) -> None:
            self.history = np.arange(3.0)

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = "mmengine.logging.history_buffer", "HistoryBuffer"
    model = small_model("two-stage", **SIZES)
    for projection in model.pyramid.projections:
        torch.nn.init.zeros_(projection[0].bias)
    save_foreign(tmp_path / "plain.pth", model, INFO, "mmdetection")
    content = torch.load(tmp_path / "plain.pth", weights_only=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setattr(sys.modules["mmengine.logging.history_buffer"], "HistoryBuffer", HistoryBuffer, raising=False)
        torch.save({**content, "message_hub": {"loss": HistoryBuffer()}, "meta": {"seed": np.int64(3)}},
                   tmp_path / "run.pth")
    found, info = read_any(tmp_path / "run.pth")
    assert info.dialect == "mmdetection"
    assert any(key.endswith("num_batches_tracked") for key in info.unused)
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in model.state_dict().items())


def test_mmdetection_has_no_bias_in_its_neck(tmp_path: Path) -> None:
    model = small_model("two-stage", **SIZES)
    torch.nn.init.ones_(model.pyramid.projections[0][0].bias)
    with pytest.raises(ValueError, match=r"input_proj\.0\.0\.bias: MMDetection has no such bias"):
        save_foreign(tmp_path / "a.pth", model, INFO, "mmdetection")


def folder_of(tmp_path: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> Path:
    """A folder of transformers, whose config is changed."""
    folder = tmp_path / "folder"
    save_foreign(folder, small_model("two-stage", **SIZES), INFO, "huggingface")
    content = json.loads((folder / "config.json").read_text())
    if change:
        change(content)
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_the_backbone_is_the_one_that_the_config_names(tmp_path: Path) -> None:
    model = small_model("two-stage", num_heads=8, num_classes=3, num_queries=300)
    assert "resnet" not in model.config.backbone
    save_foreign(tmp_path / "folder", model, INFO, "huggingface")
    found, _ = read_any(tmp_path / "folder")
    assert found.config.backbone == model.config.backbone
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("change", [{"dilation": True}, {"backbone_kwargs": {"output_stride": 16}},
                                    {"backbone_config": {"output_stride": 16}, "backbone": "resnet18"}])
def test_dilation_is_read_from_the_config(change: dict[str, Any], tmp_path: Path) -> None:
    assert not read_any(folder_of(tmp_path))[0].config.dilation
    assert read_any(folder_of(tmp_path, lambda content: content.update(change)))[0].config.dilation


def test_layers_that_differ_are_not_one(tmp_path: Path) -> None:
    """A config that denies box refinement would silently drop the heads of all layers but the first."""
    folder = tmp_path / "folder"
    save_foreign(folder, small_model("refine", **SIZES), INFO, "huggingface")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "with_box_refine": False}))
    with pytest.raises(WeightsError, match="the heads of the decoder's layers differ, while the config says"):
        read_any(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_waited_for(make: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(WeightsError, match=f"{name}: expected a file"):
        read_any(folder)


def test_a_plain_detector_does_not_refine_boxes(tmp_path: Path) -> None:
    """The one head of a detector without refinement cannot stand for those that a config promises."""
    folder = tmp_path / "folder"
    save_foreign(folder, small_model("multi-scale", **SIZES), INFO, "huggingface")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "with_box_refine": True}))
    with pytest.raises(WeightsError, match=r"bbox_embed|decoder\.heads"):
        read_any(folder)


@pytest.mark.parametrize("change", [{"sine_position_embedding_scale": 6.2831853}, {"num_attention_heads": 8}])
def test_settings_that_say_the_same_otherwise(change: dict[str, Any], tmp_path: Path) -> None:
    assert read_any(folder_of(tmp_path, lambda content: content.update(change)))[0].config.num_heads == 8


def test_two_levels_are_none_of_transformers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_levels: 2, while transformers has one level or at least the three"):
        save_foreign(tmp_path / "folder", small_model("multi-scale", **SIZES, num_levels=2), INFO, "huggingface")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("meta", [{"dataset_meta": {"classes": ["ray", "cod", "eel"]}},
                                  {"CLASSES": ("ray", "cod", "eel")}])
def test_mmdetection_names_its_classes(meta: dict[str, Any], tmp_path: Path) -> None:
    content = mmdetection_checkpoint(tmp_path)
    torch.save({**content, "meta": meta}, tmp_path / "named.pth")
    assert read_any(tmp_path / "named.pth")[1].names == ("ray", "cod", "eel")


@pytest.mark.parametrize(("meta", "message"), [
    ({"CLASSES": ("ray", "cod")}, "classes: expected 3 names, one for each row of the class head, got 2"),
    ({"CLASSES": (1, 2, 3)}, "meta: expected the names of classes"), ({"CLASSES": "ray"}, "meta: expected the names")])
def test_names_of_mmdetection_that_are_wrong(meta: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save({**mmdetection_checkpoint(tmp_path), "meta": meta}, tmp_path / "named.pth")
    with pytest.raises(WeightsError, match=message):
        read_any(tmp_path / "named.pth")


def mmdetection_checkpoint(tmp_path: Path, preset: str = "two-stage") -> dict[str, Any]:
    model = small_model(preset, **SIZES)
    for projection in model.pyramid.projections:
        torch.nn.init.zeros_(projection[0].bias)
    save_foreign(tmp_path / "plain.pth", model, INFO, "mmdetection")
    return torch.load(tmp_path / "plain.pth", weights_only=True)


def test_two_stages_with_one_head_for_all_are_refused(tmp_path: Path) -> None:
    """MMDetection has them, ours are always refined; taken for refined, boxes would be silently wrong."""
    content = mmdetection_checkpoint(tmp_path)
    state = content["state_dict"]
    for key in state:
        if match := re.fullmatch(r"(bbox_head\.(?:cls|reg)_branches)\.\d+\.(.+)", key):
            state[key] = state[f"{match[1]}.0.{match[2]}"]
    torch.save(content, tmp_path / "shared.pth")
    with pytest.raises(WeightsError, match="two stages: expected heads of its own for each layer"):
        read_any(tmp_path / "shared.pth")


def published_checkpoint(path: Path, preset: str = "two-stage", **arguments: object) -> Path:
    model = small_model(preset, **SIZES)
    torch.save({"model": to_official(model.state_dict(), model.config), "args": argparse.Namespace(**arguments)}, path)
    return path


def test_the_arguments_of_the_authors_are_settings(tmp_path: Path) -> None:
    path = published_checkpoint(tmp_path / "a.pth", nheads=8, dilation=True, num_queries=11, two_stage=True,
                                with_box_refine=True, dropout=0.0, enc_n_points=4, dec_n_points=4, lr=2e-4)
    config = read_any(path)[0].config
    assert (config.num_heads, config.dilation, config.num_queries, config.dropout) == (8, True, 11, 0.0)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"two_stage": False}, "two_stage: the tensors are those of a model with True, but the file says False"),
    ({"with_box_refine": False}, "the heads of the decoder's layers differ|two stages: expected heads"),
    ({"nheads": 7}, "expected rows for 7 heads"),
    ({"nheads": "8"}, "num_heads: expected int"),
    ({"num_queries": 10**12}, "num_queries: expected int, at most"),
    ({"enc_n_points": 4, "dec_n_points": 8}, "args.enc_n_points and dec_n_points: expected one number, got 4 and 8"),
    ({"position_embedding": "learned"}, "args.position_embedding: expected sine, got 'learned'"),
    ({"position_embedding_scale": 1.0}, "args.position_embedding_scale: expected 6.28"),
    ({"pe_temperatureH": 10000}, "args.pe_temperatureH: expected 20, got 10000"),
    ({"pre_norm": True}, "args.pre_norm: expected False, got True")])
def test_arguments_that_contradict(arguments: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        read_any(published_checkpoint(tmp_path / "a.pth", **arguments))


@pytest.mark.parametrize("wrap", [
    lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}
                   | {"criterion.empty_weight": torch.ones(4)}},
    lambda state: {"model": {**state, "criterion.empty_weight": torch.ones(4)}},
    lambda state: {"ema_model": {"decay": 0.99, "module": state}, "model": {"a": torch.ones(1)}},
    lambda state: {"ema_model": {"decay": 0.99, "updates": 3}, "model": state},
    lambda state: {"model": {"state_dict": {f"module.{key}": value for key, value in state.items()}}}])
def test_wrappers_of_training_code(wrap: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path) -> None:
    model = small_model("refine", **SIZES)
    torch.save(wrap(to_official(model.state_dict(), model.config)), tmp_path / "a.pth")
    found, _ = read_any(tmp_path / "a.pth")
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in model.state_dict().items())


def in_parts(folder: Path, index: Any) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_weights_in_parts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    whole, _ = read_any(folder)
    in_parts(folder, {"weight_map": {"any": "model-00001-of-00001.safetensors"}})
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in read_any(folder)[0].state_dict().items())


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c.update(model_type="yolos"), "model_type: expected deformable_detr or detr or dab-detr, got 'yolos'"),
    (lambda c: c.update(encoder_attention_heads=10**9, decoder_attention_heads=10**9), "num_heads: expected int"),
    (lambda c: c.update(two_stage_num_proposals=10**12), "num_queries: expected int, at most"),
    (lambda c: c.update(two_stage_num_proposals="many"), "num_queries: expected int"),
    (lambda c: c.update(encoder_attention_heads=7, decoder_attention_heads=7), "expected rows for 7 heads"),
    (lambda c: c.update(decoder_n_points=9), "encoder_n_points and decoder_n_points: expected one number"),
    (lambda c: c.update(activation_function="gelu"), "activation_function: expected 'relu', got 'gelu'"),
    (lambda c: c.update(dropout=7.5), r"dropout: expected a value in \[0, 1\)"),
    (lambda c: (c.update(decoder_attention_heads=4), c.pop("encoder_attention_heads")), "one number, got 8 and 4"),
    (lambda c: c.update(num_attention_heads=4), "num_attention_heads and encoder_attention_heads: expected one number"),
    (lambda c: c.update(backbone_config={"output_stride": 8}), "output_stride: expected 16 or 32, got 8"),
    (lambda c: c.update(backbone_kwargs={"output_stride": 8}), "output_stride: expected 16 or 32, got 8"),
    (lambda c: c.update(dilation=True, backbone_config={"backbone": "resnet18"}), "dilation: true, while the backbone"),
    (lambda c: c.update(num_feature_levels=10**9), "num_levels: the tensors are those of a model with 4, but the file"),
    (lambda c: c.update(encoder_layers=6), "num_encoder_layers: the tensors are those of a model with 1, but the file"),
    (lambda c: c.update(d_model=256), "width: the tensors are those of a model with 32, but the file says 256"),
    (lambda c: c.update(dropout=float("nan")), "dropout: expected"),
    (lambda c: c.update(backbone=["resnet18"]), r"backbone: expected a name, got \['resnet18'\]"),
    (lambda c: c.update(dilation="yes"), "dilation: expected true or false, got 'yes'"),
    (lambda c: c.update(two_stage=False), "two_stage: the tensors are those of a model with True, but"),
    (lambda c: c.update(sine_position_embedding_scale=1.0), "sine_position_embedding_scale: expected 2 pi, got 1.0"),
    (lambda c: c.update(id2label={"1": "a", "2": "b", "3": "c"}), "id2label: expected the 3 numbers from 0 to 2"),
    (lambda c: c.update(id2label={"0": "a", "1": "b"}), "id2label: expected the 3 numbers from 0 to 2, .* got 2"),
    (lambda c: c.update(id2label=["a", "b", "c"]), "id2label: expected the 3 numbers from 0 to 2"),
    (lambda c: c.update(id2label={"0": 1, "1": "b", "2": "c"}), "id2label: expected text for every class"),
    (lambda c: c.update(id2label={"0": "a\u001b[2J", "1": "b", "2": "c"}), "names: expected no control characters"),
])
def test_configs_that_are_wrong(change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message) as raised:
        read_any(folder_of(tmp_path, change))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("content", "message"), [
    ({"size": {"shortest_edge": 10**9, "longest_edge": 10**9}}, "size: expected shortest_edge and longest_edge up to"),
    ({"size": {"height": 640, "width": 640}}, "size: expected shortest_edge and longest_edge"),
    ({"do_normalize": False}, "do_normalize: expected True, got False"),
    ({"rescale_factor": 1}, "rescale_factor: expected 0.0039"),
    ({"image_processor_type": "YolosImageProcessor"}, "image_processor_type: expected one of this family's, such as"),
    ({"feature_extractor_type": "ViTFeatureExtractor"}, "image_processor_type: expected one of this family's"),
    ({"pad_size": {"height": 640, "width": 640}}, "pad_size: expected None"),
    ({"do_bgr": True}, "do_bgr: expected False, got True"),
    ({"offset": True}, "offset: expected False"),
    ({"do_center_crop": True}, "do_center_crop: expected False"),
    ({"image_mean": "grey"}, "image_mean: expected 3 numbers"),
    ({"image_std": [0, 0, 0]}, "deviation: expected at least"),
    ([1], "preprocessor_config.json: expected an object, got list")])
def test_preprocessors_that_are_wrong(content: Any, message: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=message):
        read_any(folder)


@pytest.mark.parametrize(("content", "size"), [
    ({}, (800, 1333)), ({"size": 600}, (600, 1333)), ({"size": 600, "max_size": 900}, (600, 900)),
    ({"size": {"shortest_edge": 480, "longest_edge": 640}}, (480, 640))])
def test_sizes_of_all_releases(content: Any, size: tuple[int, int], tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    preprocessing = read_any(folder)[1].preprocessing
    assert (preprocessing.size, preprocessing.max_size) == size


@pytest.mark.parametrize(("weight_map", "message"), [
    ({"a": "../secret.safetensors"}, "expected the names of files in this folder, got '../secret.safetensors'"),
    ({"a": "/etc/passwd"}, "expected the names of files in this folder"),
    ({"a": "..\\secret"}, "expected the names of files in this folder"),
    ({"a": "absent.safetensors"}, "lists 'absent.safetensors', which is not in the folder"),
    ({"a": 7}, "expected a weight_map of names of files"),
    ({}, "expected a weight_map of names of files"),
    ("x", "expected a weight_map of names of files")])
def test_indices_that_are_wrong(weight_map: Any, message: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    in_parts(folder, {"weight_map": weight_map})
    with pytest.raises(WeightsError, match=message):
        read_any(folder)


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state: dict[str, Any] = {**to_official(small_model("two-stage", **SIZES).state_dict()),
                             **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in state.items() if value is not None}


LEVELS = "transformer__level_embed"


@pytest.mark.parametrize(("state", "message"), [
    (lambda: changed(mask_head__weight=torch.ones(1)), "got the keys of a detector with masks"),
    (lambda: changed(extra__weight=torch.ones(1)), "1 unexpected keys: extra.weight"),
    (lambda: changed(**{LEVELS: None}), "transformer|pyramid.level_embedding|attention"),
    (lambda: changed(**{LEVELS: torch.full((4, 32), torch.nan)}), "pyramid.level_embedding: expected finite numbers"),
    (lambda: changed(**{LEVELS: torch.ones(4, 32, dtype=torch.int64)}), "level_embedding .expected F32 or F16 or BF16"),
    (lambda: changed(**{LEVELS: torch.ones(4, 33)}), "level_embedding .expected .4, 32., got .4, 33."),
    (lambda: changed(**{LEVELS: torch.ones(())}), "pyramid.level_embedding: expected a tensor with values, got the"),
    (lambda: changed(bbox_embed__0__layers__0__bias=torch.ones(32)), "differs from its other copy"),
    (lambda: {"weight": torch.ones(2)}, "expected the names of this package, .* got 1 keys such as weight"),
    (dict, "expected a state dict")])
def test_state_dicts_that_are_wrong(state: Callable[[], Any], message: str, tmp_path: Path) -> None:
    torch.save({"model": state()}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message) as raised:
        read_any(tmp_path / "a.pth")
    assert str(raised.value).startswith(f"{tmp_path / 'a.pth'}: ")
    assert "\n" not in str(raised.value)


class Hostile:
    def __reduce__(self) -> Any:
        return print, ("code has run",)


def test_code_in_pickles_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {"a": torch.ones(1)}, "args": Hostile()}, tmp_path / "a.pth")
    (tmp_path / "b.bin").write_bytes(pickle.dumps(Hostile()))
    for name in ("a.pth", "b.bin"):
        with pytest.raises(WeightsError, match="refused"):
            read_any(tmp_path / name)
    assert "code has run" not in capsys.readouterr().out


def test_archives_that_grow_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(WeightsError, match="its archive is compressed or would become larger"):
        read_any(tmp_path / "a.pth")


@pytest.mark.parametrize("header", [
    {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
    {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"},
    {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}])
def test_headers_that_lie(header: dict[str, Any], tmp_path: Path) -> None:
    encoded = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(encoded).to_bytes(8, "little") + encoded + bytes(4))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        read_any(tmp_path / "a.safetensors")


def test_training_starts_from_a_folder_of_transformers(tmp_path: Path) -> None:
    """Rows of classes with the same name are kept bit for bit, in the order of the data."""
    folder = folder_of(tmp_path)
    before, _ = read_any(folder)
    model = read_origin(Start(weights=folder)).model(("eel", "new", "cat"), seed=0)
    assert model.config.num_classes == 3
    for key, tensor in model.state_dict().items():
        old = before.state_dict()[key]
        if key.startswith("decoder.heads.") and ".classify." in key:
            assert torch.equal(tensor[[0, 2]], old[[2, 0]])
        elif key.startswith("queries.head.classify."):
            assert torch.equal(tensor[0], old[0])
        else:
            assert torch.equal(tensor, old)


@pytest.mark.parametrize("command", ["detect", "trace"])
def test_commands_take_a_folder_of_transformers(command: str, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path)
    (folder / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 64, "longest_edge": 96}}')
    PIL.Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    assert main([command, str(tmp_path / "a.png"), "--weights", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("to", "key", "message"), [
    ("huggingface", "model.decoder.layers.0.self_attn.q_proj.weight", "k_proj and v_proj of one shape"),
    ("mmdetection", "neck.convs.0.conv.weight", "pyramid.projections.0.0.weight .expected"),
    ("published", "class_embed.0.weight", "expected a tensor with values, got the shape"),
    ("published", "transformer.encoder.layers.0.self_attn.attention_weights.weight", "expected a tensor with values")])
def test_tensors_without_axes(to: Any, key: str, message: str, tmp_path: Path) -> None:
    model = small_model("two-stage", **SIZES)
    for projection in model.pyramid.projections:
        torch.nn.init.zeros_(projection[0].bias)
    state = convert(model.state_dict(), to, model.config)
    state |= dict.fromkeys([key, f"transformer.decoder.{key}"] if key.startswith("class") else [key], torch.zeros(()))
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message):
        read_any(tmp_path / "a.pth")
