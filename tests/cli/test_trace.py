import io
import json
import os
import pdb
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import deformable_detr
from deformable_detr import cli
from deformable_detr.papers import ModelConfig
from deformable_detr.weights import load
from helpers.models import small_model

PACKAGE = Path(deformable_detr.__file__).parent
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
    outputs = [re.sub(r" [0-9.]+ ms:", "", output) for output in outputs]
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
    ("trace a.png --stop-at tokens --json", "--stop-at and --json"),
    ("trace a.png --html page.txt", "--html: expected a file whose name ends in .html, got page.txt"),
])
def test_wrong_calls(folder: Path, call: str, message: str, capsys: Captured) -> None:
    assert cli.main(call.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("ddetr: ")
    assert message in output.err


ANY_PAPER = ("multi-scale", "two-stage", "detr", "dab-detr", "dab-deformable-detr", "dino-4scale")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What is typed into the standard debugger, which pytest would otherwise replace by its own."""
    def type_in(lines: str) -> None:
        def stop() -> None:
            debugger = pdb.Pdb(stdin=io.StringIO(lines), stdout=sys.stdout, nosigint=True, readrc=False)
            debugger.set_trace(sys._getframe(1))

        monkeypatch.setattr("sys.breakpointhook", stop)
    return type_in


def stops_of(output: str) -> list[tuple[str, int]]:
    """The file and line of each stop of the standard debugger."""
    found = re.findall(r"^(?:\(Pdb\) )*> (.+?)\((\d+)\)", output, re.M)
    return [(Path(file).relative_to(PACKAGE).as_posix(), int(line)) for file, line in found]


def test_a_debugger_opens_in_the_line_of_a_stage(folder: Path, weights: Path, capsys: Captured,
                                                 script: Callable[[str], None]) -> None:
    call = ["trace", "a.png", "--weights", str(weights)]
    assert cli.main([*call, "--json"]) == 0
    stages = {(stage["part"], stage["name"]): stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    for wanted, key in [("sampling offsets", ("encoder layer 0", "sampling offsets")),
                        ("decoder layer 1 boxes", ("decoder layer 1", "boxes")),
                        ("Pyramid: valid_ratios", ("", "valid ratios")),
                        ("preprocessing image 0", ("", "image 0")),
                        ("samples", ("encoder layer 0", "samples")),
                        ("image 0 scores", ("", "image 0 scores"))]:
        script("p tuple(tensor.shape)\ncontinue\n")
        assert cli.main([*call, "--stop-at", wanted]) == 0
        output = capsys.readouterr()
        stage = stages[key]
        assert stops_of(output.out) == [(stage["file"], stage["line"])], wanted
        assert str(tuple(stage["shape"])) in output.out
        assert output.err.startswith(f"{stage['file']}:{stage['line']}")
        assert "image 0: a.png" in output.out, "the trace goes on after the debugger"


def test_a_debugger_goes_on_from_the_line(folder: Path, weights: Path, capsys: Captured,
                                          script: Callable[[str], None]) -> None:
    """After the stop the function is the one in the file: its variables, its next lines."""
    script("next\np hidden.data_ptr() == tensor.data_ptr()\nquit\n")
    call = ["trace", "a.png", "--weights", str(weights), "--stop-at", "encoder layer 0 hidden"]
    assert cli.main(call) == 0
    output = capsys.readouterr()
    (file, line), (after, next_line) = stops_of(output.out)
    assert (file, after, next_line) == ("model/feedforward.py", file, line + 1)
    assert "True" in output.out
    assert "sampling offsets" not in output.out, "whoever quits the debugger has seen enough"


def test_the_debugger_of_a_plain_call(folder: Path, weights: Path) -> None:
    """As from a shell: nothing of this process is in between."""
    call = [sys.executable, "-m", "deformable_detr", "trace", "a.png", "--weights", str(weights), "--stop-at", "memory"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONBREAKPOINT"}
    ended = subprocess.run(call, input="p tensor.shape\nquit\n", env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert stops_of(ended.stdout) == [("model/encoder.py", line_of("model/encoder.py", "return pyramid"))]
    assert "torch.Size([1, " in ended.stdout
    assert "Traceback" not in ended.stderr


def test_the_debugger_that_the_environment_names(folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", "scripted_debugger.stop")
    monkeypatch.setattr("sys.breakpointhook", sys.__breakpointhook__)
    seen = []

    def stop() -> None:
        frame = sys._getframe(1)
        seen.append((Path(frame.f_code.co_filename).name, frame.f_lineno, frame.f_locals["tensor"].shape[-1],
                     type(frame.f_locals["self"]).__name__))

    monkeypatch.setitem(sys.modules, "scripted_debugger", SimpleNamespace(stop=stop))
    assert cli.main(["trace", "a.png", "--weights", str(weights), "--stop-at", "decoder layer 1 logits"]) == 0
    line = line_of("model/heads.py", "return self.classify(hidden), self.moved(hidden, reference)")
    assert seen == [("heads.py", line, 3, "Head")]
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    assert cli.main(["trace", "a.png", "--weights", str(weights), "--stop-at", "decoder layer 1 logits"]) == 0
    assert len(seen) == 1


def line_of(file: str, text: str) -> int:
    return next(number for number, line in enumerate((PACKAGE / file).read_text().splitlines(), start=1)
                if line.strip() == text)


def test_a_stage_that_does_not_exist(folder: Path, weights: Path, capsys: Captured) -> None:
    call = ["trace", "a.png", "--weights", str(weights), "--stop-at", "sampling ofsets"]
    assert cli.main(call) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == ("ddetr: --stop-at: expected one of the stages that ddetr trace prints, "
                          "got 'sampling ofsets'; did you mean 'sampling offsets'?\n")


def test_a_debugger_needs_something_to_read(folder: Path, weights: Path, capsys: Captured,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input is None where a shell closed it, as `<&-` does."""
    monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
    monkeypatch.setattr("sys.stdin", None)
    assert cli.main(["trace", "a.png", "--weights", str(weights), "--stop-at", "memory"]) == 2
    assert capsys.readouterr().err == ("ddetr: --stop-at: the debugger reads its commands from standard input, "
                                       "which is closed\n")


def test_names_that_a_terminal_would_obey(folder: Path, weights: Path, capsys: Captured) -> None:
    hostile = "\x1b[31m\u202egnp.png"
    save_noise(hostile, 30, 20)
    assert cli.main(["trace", hostile, "--weights", str(weights)]) == 0
    output = capsys.readouterr().out
    assert "image 0: \\x1b[31m\\u202egnp.png" in output
    assert "\x1b" not in output
    assert "\u202e" not in output


def test_the_page(folder: Path, weights: Path, capsys: Captured) -> None:
    hostile = "<img src=x onerror=alert(1)>\"'&amp;.png"
    save_noise(hostile, 30, 20)
    assert cli.main(["trace", hostile, "--weights", str(weights), "--html", "pages/trace.html", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    page = Path("pages/trace.html").read_text()
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert page.count('<details class="stage">') == len(stages)
    for stage in stages:
        assert f"{stage['file']}:{stage['line']}" in page
    assert "script" not in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")


@pytest.mark.parametrize("preset", ANY_PAPER)
def test_every_paper(folder: Path, monkeypatch: pytest.MonkeyPatch, preset: str, capsys: Captured) -> None:
    monkeypatch.setattr("deformable_detr.cli.trace._random_model", small_model)
    assert cli.main(["trace", "a.png", "b.png", "--preset", preset, "--html", "page.html"]) == 0
    assert capsys.readouterr().out.count(" ms: ") > 20
