import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deformable_detr import cli
from deformable_detr.papers import ModelConfig
from deformable_detr.weights import load

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def weights(tiny_weights: str) -> Path:
    return Path(tiny_weights)


@pytest.fixture
def folder(folder: Path) -> Path:
    """The working folder of a call, with two images."""
    save_noise("a.png", 40, 30)
    save_noise("b.png", 20, 50)
    return folder


SHORT = {"backbone": "resnet26", "num_encoder_layers": 1, "num_decoder_layers": 1}   # of the same shapes


@pytest.fixture
def short_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in ModelConfig.presets.items():
        monkeypatch.setitem(ModelConfig.presets, name, {**values, **SHORT})


def save_noise(name: str, height: int, width: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(name, compress_level=0)


def sections(output: str) -> list[tuple[str, list[str]]]:
    """The printed table: each heading with the lines below it, without the space that aligns them."""
    found: list[tuple[str, list[str]]] = []
    _, _, table = output.partition("range\n")
    for line in table.splitlines():
        if line.startswith(" "):
            found[-1][1].append(" ".join(line.split()))
        else:
            found.append((line, []))
    return found


@pytest.mark.parametrize("changes", [pytest.param({}, marks=pytest.mark.slow, id="published"),
                                     pytest.param(SHORT, id="short")])
def test_what_a_reader_saw_in_a_debugger(folder: Path, changes: dict, monkeypatch: pytest.MonkeyPatch,
                                         capsys: Captured) -> None:
    """The values of the published code, in the order of its stages."""
    monkeypatch.setitem(ModelConfig.presets, "multi-scale", changes)
    save_noise("tall.png", 1063, 738)
    save_noise("wide.png", 548, 813)
    assert cli.main(["trace", "tall.png", "wide.png", "--preset", "multi-scale"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    lines = iter([f"{heading}: {line}" for heading, below in sections(output.out) for line in below])
    for expected in [
        "images/reading.py: image 0 (1063, 738, 3)",
        "images/reading.py: image 1 (548, 813, 3)",
        "preprocessing.py: image 0 (3, 1063, 738)",
        "structures.py: images (2, 3, 1063, 813)",
        "model/backbone.py: C3 (2, 512, 133, 102)",
        "model/backbone.py: C4 (2, 1024, 67, 51)",
        "model/backbone.py: C5 (2, 2048, 34, 26)",
        "model/pyramid.py: level 0 (2, 256, 133, 102)",
        "model/pyramid.py: level 3 (2, 256, 17, 13)",
        "model/pyramid.py: tokens (2, 18088, 256)",
        "model/pyramid.py: level starts (4,) L 0 .. 17867",
        "model/pyramid.py: 0, 13566, 16983, 17867",
        "model/pyramid.py: valid ratios (2, 4, 2)",
        ("model/pyramid.py: image 0, (width, height): "
         "(0.9118, 1.0000) (0.9216, 1.0000) (0.9231, 1.0000) (0.9231, 1.0000)"),
        ("model/pyramid.py: image 1, (width, height): "
         "(1.0000, 0.5188) (1.0000, 0.5224) (1.0000, 0.5294) (1.0000, 0.5294)"),
        "model/encoder.py: reference points (2, 18088, 4, 2)",
        "model/encoder.py: of the first token: (0.0049, 0.0038) (0.0050, 0.0038) (0.0050, 0.0038) (0.0050, 0.0038)",
        "model/attention.py, encoder layer 0: sampling offsets (2, 18088, 8, 4, 4, 2) B N M L P 2 -4 .. 4",
        "model/attention.py, encoder layer 0: attention weights (2, 18088, 8, 4, 4) B N M L P 0.0625 .. 0.0625",
        "model/encoder.py: memory (2, 18088, 256)",
        "model/queries.py: query embedding (300, 512)",
        "model/queries.py: the first half is the position, the second the content",
        "model/queries.py: reference (2, 300, 2)",
        "model/heads.py, decoder layer 0: logits (2, 300, 91)",
        "model/heads.py, decoder layer 0: boxes (2, 300, 4)",
        "detections.py: image 0 boxes (100, 4)",
        "detections.py: in pixels of 1063 x 738",
        "detections.py: image 1 boxes (100, 4)",
        "detections.py: in pixels of 548 x 813",
    ]:
        assert any(line.startswith(expected) for line in lines), f"no {expected!r}, or not in this place"


def test_text_in_a_pipe_is_never_broken(folder: Path, short_presets: None, capsys: Captured,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    call = ["trace", "a.png", "b.png", "--preset", "two-stage"]
    outputs = []
    for columns in ("20", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        assert cli.main(call) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1], "the same weights each time, whatever the width"
    lines = outputs[0].splitlines()
    assert lines[:3] == ["preset two-stage, random weights, images not resized",
                         "image 0: a.png", "image 1: b.png"]
    assert all(line == line.rstrip() for line in lines)
    assert "\x1b" not in outputs[0]


def test_a_narrow_terminal_holds_every_row(folder: Path, short_presets: None, capsys: Captured,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "80", "TTY_COMPATIBLE": "1", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["trace", "a.png", "b.png", "--preset", "multi-scale"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 80
    assert any(line.endswith(" -4 .. 4") for line in lines)


def test_json_is_one_object(folder: Path, weights: Path, capsys: Captured) -> None:
    assert cli.main(["trace", "a.png", "b.png", "--weights", str(weights), "--json"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    found = json.loads(output.out)
    assert list(found) == ["pictures", "errors", "stages"]
    assert found["pictures"] == [{"file": "a.png", "width": 30, "height": 40},
                                 {"file": "b.png", "width": 50, "height": 20}]
    stages = {(stage["part"], stage["name"]): stage for stage in found["stages"]}
    assert stages["", "images"]["shape"] == [2, 3, 85, 95]
    logits = stages["decoder layer 1", "logits"]
    assert (logits["file"], logits["shape"], logits["dtype"]) == ("model/heads.py", [2, 20, 3], "float32")
    assert logits["min"] < logits["max"]
    assert stages["", "image 1 boxes"]["notes"] == ["in pixels of 20 x 50"]


def test_the_layers_that_are_shown(folder: Path, weights: Path, capsys: Captured) -> None:
    for layers, expected in [("first", 2), ("all", 3)]:
        assert cli.main(["trace", "a.png", "--weights", str(weights), "--layers", layers]) == 0
        assert capsys.readouterr().out.count("sampling offsets") == expected


def test_the_packaged_weights_are_the_default(folder: Path, weights: Path, capsys: Captured,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deformable_detr.weights.sources.packaged_weights", lambda: weights)
    assert cli.main(["trace", "a.png"]) == 0
    assert capsys.readouterr().out.startswith("weights demo\nimage 0: a.png\n")


def test_values_that_are_not_finite_are_shown_and_an_error(folder: Path, weights: Path, capsys: Captured,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    model, info = load(weights)
    with torch.no_grad():
        model.encoder.layers[0].feed_forward.norm.weight.fill_(torch.nan)  # type: ignore[union-attr]
    monkeypatch.setattr("deformable_detr.weights.reading.read_any", lambda weights: (model, info))
    assert cli.main(["trace", "a.png", "--weights", str(weights)]) == 1
    output = capsys.readouterr()
    assert "nan .. nan" in output.out
    assert output.err == "ddetr: values that are not finite, first in layer 0 tokens of model/encoder.py\n"


def test_images_that_cannot_be_read_are_left_out(folder: Path, weights: Path, capsys: Captured) -> None:
    Path("text.png").write_text("no image")
    call = ["trace", "absent.png", "a.png", "text.png", ".", "--weights", str(weights)]
    assert cli.main(call) == 1
    output = capsys.readouterr()
    assert [line.split(": ")[1] for line in output.err.splitlines()] == ["absent.png", "text.png", "."]
    assert "image 0: a.png" in output.out
    assert "(1, 3, 85, 64)" in output.out
    assert cli.main([*call, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [image["file"] for image in found["pictures"]] == ["a.png"]
    assert found["errors"][0] == {"file": "absent.png", "error": "absent.png: no such file"}


def test_no_image_at_all(folder: Path, weights: Path, capsys: Captured) -> None:
    assert cli.main(["trace", "absent.png", "--weights", str(weights)]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "ddetr: absent.png: no such file\n")
    assert cli.main(["trace", "absent.png", "--weights", str(weights), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["stages"] == []


@pytest.mark.parametrize(("call", "message"), [
    ("trace", "IMAGES"),
    ("trace a.png --preset multiscale", "multiscale"),
    ("trace a.png --preset refine --weights demo", "either --preset or --weights"),
    ("trace a.png --weights absent.safetensors", "absent.safetensors"),
    ("trace a.png --weights a.png", "not a safetensors file"),
    ("trace a.png --layers some", "some"),
    ("trace a.png --resize", "--resize"),
    ("trace a.png --model demo", "--weights"),
    ("trace a.png --quiet --verbose", "--quiet and --verbose"),
])
def test_wrong_calls(folder: Path, call: str, message: str, capsys: Captured) -> None:
    assert cli.main(call.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("ddetr: ")
    assert message in output.err
