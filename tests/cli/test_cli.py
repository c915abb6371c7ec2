import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deformable_detr import cli, doctor
from deformable_detr.images import EXIF_ORIENTATION, read_image
from deformable_detr.papers import DeformableDETR, ModelConfig
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo, save

Captured = pytest.CaptureFixture[str]
TINY = ModelConfig(backbone="test_resnet", width=64, num_heads=2, num_points=2, num_encoder_layers=1,
                   num_decoder_layers=2, ffn_width=32, num_queries=20, num_classes=3)
INFO = ModelInfo(("cat", "dog", "猫"), (1, 17, 90), Preprocessing(size=64, max_size=96))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(path, DeformableDETR(TINY), INFO)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of a call."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image(height: int = 30, width: int = 40) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 6 % 256, y * 8 % 256, (x + y) % 256], axis=2).astype(np.uint8))


def json_lines(capsys: Captured) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
@pytest.mark.parametrize("closed", ["> /dev/full", "| true", ">&-", "2>&-"])
def test_an_output_that_takes_nothing_ends_without_a_traceback(folder: Path, weights: str, closed: str) -> None:
    image().save("a.jpg")
    call = f"{shlex.quote(sys.executable)} -m deformable_detr detect a.jpg --weights {shlex.quote(weights)} --json"
    ended = subprocess.run(["sh", "-c", f"{call} {closed}"], capture_output=True, text=True, check=False)
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_what_lay_there_stays_where_a_drawing_cannot_be_written(folder: Path, weights: str, capsys: Captured,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    image().save("a.jpg")
    assert cli.main(["detect", "a.jpg", "--weights", weights]) == 0
    before = Path("detections/a.jpg").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert cli.main(["detect", "a.jpg", "--weights", weights, "--threshold", "0"]) == 1
    assert "a.jpg: cannot write its detections" in capsys.readouterr().err
    assert Path("detections/a.jpg").read_bytes() == before
    assert [path.name for path in Path("detections").iterdir()] == ["a.jpg"]


def test_a_name_cannot_command_the_terminal(folder: Path, weights: str, capsys: Captured) -> None:
    image().save("a.png")
    Path("a.png").rename("new\nline\x1b[31m.png")
    Path("b\x1b[2J.png").write_text("no image")
    assert cli.main(["detect", ".", "--weights", weights]) == 1
    output = capsys.readouterr()
    assert "new\\nline\\x1b[31m.png: " in output.out
    assert len(output.out.splitlines()) == 1
    assert "\x1b" not in output.out + output.err


def test_json_has_a_line_a_image_and_nothing_else(folder: Path, weights: str, capsys: Captured) -> None:
    image().save("b.jpg")
    image(20, 50).save("a.png")
    assert cli.main(["detect", "b.jpg", "a.png", "--weights", weights, "--threshold", "0", "--json"]) == 0
    first, second = json_lines(capsys)
    assert list(first) == ["file", "width", "height", "detections"]
    assert (first["file"], first["width"], first["height"]) == ("b.jpg", 40, 30)
    assert (second["file"], second["width"], second["height"]) == ("a.png", 50, 20)
    assert len(first["detections"]) == 60
    for found in first["detections"]:
        assert list(found) == ["label", "name", "score", "box"]
        assert found["label"] == INFO.category_ids[INFO.names.index(found["name"])]
        assert 0 <= found["score"] <= 1
        x0, y0, x1, y1 = found["box"]
        assert 0 <= x0 <= x1 <= 40
        assert 0 <= y0 <= y1 <= 30
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.jpg"]


def test_images_are_drawn_into_the_output_folder(folder: Path, weights: str, capsys: Captured) -> None:
    image(80, 100).save("b.jpg")
    assert cli.main(["detect", "b.jpg", "--weights", weights, "--threshold", "0", "--out", "new/out"]) == 0
    drawn = read_image("new/out/b.jpg").astype(int)
    assert drawn.shape == (80, 100, 3)
    assert np.abs(drawn - np.asarray(image(80, 100))).max() > 100
    output = capsys.readouterr()
    assert output.out.startswith("b.jpg: ")
    assert " cat" in output.out
    assert "new/out/b.jpg" in output.out.replace("\\", "/")
    assert output.err == ""


def test_without_an_output_folder_images_go_to_detections(folder: Path, weights: str,
                                                          capsys: Captured) -> None:
    image().save("b.jpg")
    assert cli.main(["detect", "b.jpg", "--weights", weights, "--threshold", "1"]) == 0
    assert Path("detections/b.jpg").is_file()
    assert "nothing found" in capsys.readouterr().out


def test_folders_and_globs(folder: Path, weights: str, capsys: Captured) -> None:
    Path("shots/deep").mkdir(parents=True)
    for name in ("shots/c.JPG", "shots/a.png", "shots/deep/d.jpeg", "shots/.hidden.png"):
        image().save(name)
    Path("shots/notes.txt").write_text("no image")
    for sources, expected in [
        (["shots"], ["shots/a.png", "shots/c.JPG"]),
        (["shots/c.JPG", "shots", "shots/*"], ["shots/c.JPG", "shots/a.png"]),
        (["shots/*.png"], ["shots/a.png"]),
        (["shots/**"], ["shots/a.png", "shots/c.JPG", "shots/deep/d.jpeg"]),
        ([str(folder / "shots" / "[ab].*")], [(folder / "shots" / "a.png").as_posix()]),
    ]:
        assert cli.main(["detect", *sources, "--weights", weights, "--json"]) == 0
        assert [Path(line["file"]).as_posix() for line in json_lines(capsys)] == expected


def test_unusual_images_are_detected(folder: Path, weights: str, capsys: Captured) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    image().save("turned.jpg", exif=exif)
    image().convert("CMYK").save("print.jpg")
    Image.fromarray(np.full((30, 40), 40_000, dtype=np.uint16)).save("deep.png")
    image().convert("L").save("grey.png")
    image().quantize(200).save("palette.png", transparency=bytes(range(200)))
    image().save("moving.gif", save_all=True, append_images=[image()])
    image(1, 1).save("dot.png")
    image(1, 4000).save("line.png")
    files = sorted(path.name for path in folder.iterdir())
    assert cli.main(["detect", ".", "--weights", weights, "--threshold", "0", "--json", "--out", "out"]) == 0
    lines = {line["file"]: line for line in json_lines(capsys)}
    assert sorted(lines) == files
    assert all(len(line["detections"]) == 60 for line in lines.values())
    assert (lines["turned.jpg"]["width"], lines["turned.jpg"]["height"]) == (30, 40)
    assert read_image("out/turned.jpg").shape == (40, 30, 3)
    assert read_image("out/line.png").shape == (1, 4000, 3)
    assert len(list(Path("out").iterdir())) == len(files)


def test_bad_input_does_not_stop_the_rest(folder: Path, weights: str, capsys: Captured) -> None:
    image(200, 300).save("good.jpg")
    Path("truncated.jpg").write_bytes(Path("good.jpg").read_bytes()[:1000])
    Path("text.jpg").write_text("no image")
    Path("empty.jpg").touch()
    Path("bare").mkdir()
    bad = ["truncated.jpg", "text.jpg", "empty.jpg", "absent.jpg", "bare", "no*.png"]
    for sources in ([*bad, "good.jpg"], ["good.jpg", *bad]):
        assert cli.main(["detect", *sources, "--weights", weights, "--json", "--out", "out"]) == 1
        output = capsys.readouterr()
        lines = {line["file"]: line for line in map(json.loads, output.out.splitlines())}
        assert list(lines) == sources
        assert "detections" in lines.pop("good.jpg")
        assert all(list(line) == ["file", "error"] for line in lines.values())
        errors = output.err.splitlines()
        assert len(errors) == len(bad)
        assert all(any(error.startswith(f"ddetr: {name}: ") for error in errors) for name in bad)
        assert [path.name for path in Path("out").iterdir()] == ["good.jpg"]
    assert "no images there" in lines["bare"]["error"]
    assert "truncated" in lines["truncated.jpg"]["error"]


def test_no_source_is_overwritten_and_no_output_twice(folder: Path, weights: str) -> None:
    for name in ("a/x.jpg", "b/x.jpg", "b/x.png", "out/x.jpg", "out/X-2.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        image().save(name)
    sources = {path: path.read_bytes() for path in folder.rglob("x*.*")}
    call = ["detect", "a", "b", "out/x.jpg", "--weights", weights, "--threshold", "0", "--out", "out"]
    assert cli.main(call) == 0
    assert {path: path.read_bytes() for path in sources} == sources
    outputs = sorted(path.name for path in Path("out").iterdir())
    assert {"x.jpg", "x.png", "x-3.jpg"} <= set(outputs)
    assert cli.main(call) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == outputs


def test_an_output_that_cannot_be_written_is_told(folder: Path, weights: str, capsys: Captured) -> None:
    image().save("a.jpg")
    image().save("b.jpg")
    Path("out/a.jpg").mkdir(parents=True)
    assert cli.main(["detect", "a.jpg", "b.jpg", "--weights", weights, "--out", "out"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("ddetr: a.jpg: cannot write its detections")
    assert output.out.startswith("b.jpg: ")
    assert Path("out/b.jpg").is_file()


@pytest.mark.parametrize(("call", "message"), [
    ("detect", "SOURCES"),
    ("detect a.jpg --treshold 0.5", "--treshold"),
    ("detct a.jpg", "detct"),
    ("detect a.jpg --threshold 1.5", "--threshold"),
    ("detect a.jpg --threshold nan", "--threshold"),
    ("detect a.jpg --threshold many", "many"),
    ("detect a.jpg --weights absent.safetensors", "absent.safetensors"),
    ("detect a.jpg --weights a.jpg", "not a safetensors file"),
    ("detect a.jpg --weights WEIGHTS --device abacus", "abacus"),
    ("detect a.jpg --weights WEIGHTS --out a.jpg", "a.jpg"),
    ("doctor --cure", "--cure"),
])
def test_wrong_calls(folder: Path, weights: str, call: str, message: str,
                     capsys: Captured) -> None:
    image().save("a.jpg")
    assert cli.main(call.replace("WEIGHTS", weights).split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("ddetr: ")
    assert message in output.err
    assert [path.name for path in folder.iterdir()] == ["a.jpg"]


def test_a_terminal_sees_a_bar_and_standard_output_stays_clean(folder: Path, weights: str,
                                                               monkeypatch: pytest.MonkeyPatch,
                                                               capsys: Captured) -> None:
    image().save("a.jpg")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert cli.main(["detect", "a.jpg", "absent.jpg", "--weights", weights, "--json"]) == 1
    output = capsys.readouterr()
    assert [json.loads(line)["file"] for line in output.out.splitlines()] == ["a.jpg", "absent.jpg"]
    assert "detecting" in output.err
    assert "absent.jpg: no such file" in output.err


def test_doctor(capsys: Captured) -> None:
    assert cli.main(["doctor"]) == 0
    output = capsys.readouterr().out
    for word in ("deformable-detr", "python", "torch", "numba", "devices", "threads", "op backend",
                 "demo weights", "numba on cpu"):
        assert word in output
    assert "agrees with the definition" in output


@pytest.mark.parametrize("fault", ["wrong", "nan", "raises"])
def test_doctor_finds_a_sick_op(monkeypatch: pytest.MonkeyPatch, capsys: Captured,
                                fault: str) -> None:
    healthy = doctor._outputs

    def sick(backend: str, device: str) -> list[torch.Tensor]:
        results = healthy("reference", device)
        if backend != "reference" and fault == "raises":
            raise RuntimeError("no compiler\nanywhere")
        if backend != "reference":
            results[2][0, 0] += 0.1 if fault == "wrong" else torch.nan
        return results

    monkeypatch.setattr(doctor, "_outputs", sick)
    assert cli.main(["doctor"]) == 1
    found = "RuntimeError: no compiler anywhere" if fault == "raises" else "gradient of locations differs by"
    assert found in capsys.readouterr().out


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment,
                          timeout=60, check=False)


def test_help_and_wrong_calls_do_not_wait_for_torch() -> None:
    code = ("import sys; from deformable_detr.cli import main; "
            "codes = [main(['--help']), main(['detect', '--help']), main(['detect', '--nope']), "
            "main(['detect', 'a.jpg', '--weights', 'absent'])]; "
            "sys.exit(f'{codes} {sorted({\"torch\", \"numba\", \"timm\"} & set(sys.modules))}')")
    result = run_python(code)
    assert result.stderr.splitlines()[-1] == "[0, 0, 2, 2] []"
    assert "Find objects in images" in result.stdout
    assert "Traceback" not in result.stderr
