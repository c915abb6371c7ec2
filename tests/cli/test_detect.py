"""`ddetr detect`: what it prints, writes and returns, for images of all kinds and wrong calls."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deformable_detr import Detector, ImageBatch, cli
from deformable_detr.detect.runtimes import TorchRuntime
from deformable_detr.detections import Postprocessing
from deformable_detr.images import EXIF_ORIENTATION, read_image
from deformable_detr.marks import is_marked
from deformable_detr.structures import Predictions
from helpers.models import TINY_INFO as INFO
from helpers.models import save_tiny

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def weights(tiny_weights: str) -> str:
    return tiny_weights


def image(height: int = 30, width: int = 40) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 6 % 256, y * 8 % 256, (x + y) % 256], axis=2).astype(np.uint8))


def json_lines(capsys: Captured) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def complaints(error: str) -> list[str]:
    """Standard error without what the first call on a machine says about compiling."""
    return [line for line in error.splitlines() if "compiling" not in line]


def test_an_older_drawing_stays_if_the_new_one_cannot_be_written(folder: Path, weights: str, capsys: Captured,
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


def test_json_has_a_line_for_each_image_and_nothing_else(folder: Path, weights: str, capsys: Captured) -> None:
    image().save("b.jpg")
    image(20, 50).save("a.png")
    assert cli.main(["detect", "b.jpg", "a.png", "--weights", weights, "--threshold", "0", "--json"]) == 0
    first, second = json_lines(capsys)
    assert list(first) == ["file", "width", "height", "detections"]
    assert (first["file"], first["width"], first["height"]) == ("b.jpg", 40, 30)
    assert (second["file"], second["width"], second["height"]) == ("a.png", 50, 20)
    assert len(first["detections"]) == 60
    for found in first["detections"]:
        assert list(found) == ["label", "name", "score", "box", "category_id"]
        assert INFO.names[found["label"]] == found["name"]
        assert INFO.category_ids[found["label"]] == found["category_id"]
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
    assert complaints(output.err) == []


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
    Path("shots/again.png").symlink_to("a.png")
    for sources, expected in [
        (["shots"], ["shots/a.png", "shots/c.JPG"]),
        (["shots/c.JPG", "shots", "shots/*"], ["shots/c.JPG", "shots/a.png"]),
        (["shots/*.png"], ["shots/a.png"]),
        (["shots/again.png", "shots/a.png", "shots/deep/../a.png", str(folder / "shots/a.png")], ["shots/again.png"]),
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
        errors = complaints(output.err)
        assert len(errors) == len(bad)
        assert all(any(error.startswith(f"ddetr: {name}: ") for error in errors) for name in bad)
        assert [path.name for path in Path("out").iterdir()] == ["good.jpg"]
    assert "no images there" in lines["bare"]["error"]
    assert "truncated" in lines["truncated.jpg"]["error"]


def test_no_source_is_overwritten_and_no_output_twice(folder: Path, weights: str) -> None:
    for name in ("a/x.jpg", "b/x.jpg", "b/x.png", "out/x.jpg", "out/x-2.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        image().save(name)
    sources = {path: path.read_bytes() for path in folder.rglob("*.*")}
    call = ["detect", "a", "b", "out/x.jpg", "--weights", weights, "--threshold", "0", "--out", "out"]
    assert cli.main(call) == 0
    assert {path: path.read_bytes() for path in sources} == sources
    outputs = sorted(path.name for path in Path("out").iterdir())
    assert outputs == ["x-2.jpg", "x-3.jpg", "x-4.jpg", "x-5.jpg", "x.jpg", "x.png"]
    assert cli.main(call) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == outputs


def test_a_drawing_that_cannot_be_written_is_reported(folder: Path, weights: str, capsys: Captured,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    image().save("a.jpg")
    image().save("b.jpg")
    rename = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == "a.jpg":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", full)
    assert cli.main(["detect", "a.jpg", "b.jpg", "--weights", weights, "--out", "out"]) == 1
    output = capsys.readouterr()
    assert complaints(output.err)[0].startswith("ddetr: a.jpg: cannot write its detections")
    assert output.out.startswith("b.jpg: ")
    assert [path.name for path in Path("out").iterdir()] == ["b.jpg"]


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
    ("detect a.jpg --weights WEIGHTS --out a.jpg", "--out: expected a folder, got the file a.jpg"),
    ("detect a.jpg --weights WEIGHTS --out https://a/b", "got https://a/b"),
    ("detect a.jpg --weights https://a/b.safetensors", "'https://a/b.safetensors'"),
    ("detect a.jpg --top-k 0", "--top-k"),
    ("detect a.jpg --conf 0.5", "unknown option --conf; ddetr calls it --threshold"),
    ("detect a.jpg --imgsz=640", "unknown option --imgsz; ddetr calls it --size, of train and check"),
    ("detect --source a.jpg", "without a flag: ddetr detect photo.jpg"),
    ("predict a.jpg", "unknown command predict; ddetr calls it detect"),
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


def test_drawings_are_not_taken_for_images(folder: Path, weights: str, capsys: Captured) -> None:
    """Not on the second call, and not where the folder of the drawings is among the sources."""
    Path("album").mkdir()
    image().save("album/a.jpg")
    image().save("album/b.png")
    originals = {path: path.read_bytes() for path in Path("album").iterdir()}
    for call in (["**/*.jpg", "**/*.png"], ["album", "--out", "album"]):
        for _ in range(3):
            assert cli.main(["detect", *call, "--weights", weights]) == 0
            lines = capsys.readouterr().out.splitlines()
            assert [line.split(": ")[0] for line in lines] == ["album/a.jpg", "album/b.png"]
    assert {path: path.read_bytes() for path in originals} == originals
    assert sorted(path.name for path in Path("album").iterdir()) == ["a-2.jpg", "a.jpg", "b-2.png", "b.png"]
    assert cli.main(["detect", "album", "--weights", weights, "--json"]) == 0
    assert "album: left out 2 x ddetr's own drawing" in capsys.readouterr().err
    assert cli.main(["detect", "album/a-2.jpg", "--weights", weights, "--json"]) == 0   # named, it is one
    assert cli.main(["detect", "detections", "--weights", weights, "--json"]) == 1
    assert "no images there but ddetr's own drawings" in capsys.readouterr().err


def test_images_of_others_are_not_overwritten(folder: Path, weights: str, capsys: Captured) -> None:
    for name in ("IMG_1.jpg", "album/IMG_1.jpg", "album/IMG_1-2.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        image(20, 20).save(name)
    Path("album/IMG_1-3.jpg").symlink_to("IMG_1.jpg")
    theirs = {path: path.read_bytes() for path in Path("album").iterdir()}
    for _ in range(2):
        assert cli.main(["detect", "IMG_1.jpg", "--weights", weights, "--out", "album"]) == 0
        assert "-> album/IMG_1-4.jpg" in capsys.readouterr().out
        assert {path: path.read_bytes() for path in theirs} == theirs
        assert len(list(Path("album").iterdir())) == 4
    assert is_marked(Path("album/IMG_1-4.jpg"))


def test_what_is_left_out_is_reported(folder: Path, weights: str, capsys: Captured) -> None:
    Path("shots").mkdir()
    image().save("shots/a.jpg")
    image().save("shots/scan.tif", save_all=True, append_images=[image(), image()])
    image().save("shots/moving.gif", save_all=True, append_images=[image(20, 20)])
    for name in ("b.heic", "c.HEIC", "d.nef"):
        Path("shots", name).write_bytes(b"raw")
    assert cli.main(["detect", "shots", "--weights", weights, "--json"]) == 0
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 3
    assert "shots: left out 2 x .heic (format not supported), 1 x .nef (format not supported)" in output.err
    assert "shots/moving.gif: only the first page or frame is used (files with more: 2, left out: 3)" in output.err


def test_more_objects_than_top_k_are_reported(folder: Path, weights: str, capsys: Captured) -> None:
    image().save("a.jpg")
    call = ["detect", "a.jpg", "--weights", weights, "--threshold", "0", "--json"]
    assert cli.main([*call, "--top-k", "7"]) == 0
    output = capsys.readouterr()
    best = json.loads(output.out)["detections"]
    assert len(best) == 7
    assert "a.jpg: only the 7 best detections are given (images with more: 1); --top-k sets the number" in output.err
    for top_k in ("60", "1000"):
        assert cli.main([*call, "--top-k", top_k]) == 0
        output = capsys.readouterr()
        assert json.loads(output.out)["detections"][:7] == best
        assert len(json.loads(output.out)["detections"]) == 60
        assert complaints(output.err) == []


def test_the_threshold_is_by_default_the_one_of_the_weights(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    image().save("a.jpg")
    info = replace(INFO, postprocessing=Postprocessing(threshold=0.02))
    weights = str(save_tiny(tmp_path / "low.safetensors", info))
    assert cli.main(["detect", "a.jpg", "--weights", weights, "--json"]) == 0
    scores = [found["score"] for found in json_lines(capsys)[0]["detections"]]
    assert 0.02 <= min(scores) < 0.1
    assert cli.main(["detect", "a.jpg", "--weights", weights, "--json", "--threshold", "0.9"]) == 0
    assert json_lines(capsys)[0]["detections"] == []


def test_labels_are_those_of_the_api(folder: Path, weights: str, capsys: Captured) -> None:
    image().save("a.png")
    assert cli.main(["detect", "a.png", "--weights", weights, "--threshold", "0", "--json"]) == 0
    found = json_lines(capsys)[0]["detections"]
    expected = Detector(weights, device="cpu")("a.png", threshold=0)
    assert [each["label"] for each in found] == expected.labels.tolist()
    assert [each["category_id"] for each in found] == [INFO.category_ids[label] for label in expected.labels]


def test_an_address_stays_as_it_was_typed(folder: Path, weights: str, capsys: Captured) -> None:
    assert cli.main(["detect", "http://127.0.0.1:1/a.jpg", "--weights", weights, "--json"]) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["file"] == "http://127.0.0.1:1/a.jpg"
    assert complaints(output.err) == ["ddetr: http://127.0.0.1:1/a.jpg: Connection refused"]


@pytest.mark.parametrize(("error", "message"), [
    (MemoryError("out of memory; a smaller size"), "a.jpg: out of memory; a smaller size"),
    (ValueError("predictions: expected finite scores"), "a.jpg: predictions: expected finite scores")])
def test_an_image_that_cannot_be_computed_does_not_stop_the_rest(
        folder: Path, weights: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: Exception,
        message: str) -> None:
    run = TorchRuntime.run

    def fail(runtime: TorchRuntime, batch: ImageBatch) -> Predictions:
        if batch.sizes[0] == (64, 85):
            raise error
        return run(runtime, batch)

    monkeypatch.setattr(TorchRuntime, "run", fail)
    image(60, 80).save("a.jpg")
    image(40, 40).save("b.jpg")
    assert cli.main(["detect", "a.jpg", "b.jpg", "--weights", weights, "--json"]) == 1
    output = capsys.readouterr()
    first, second = map(json.loads, output.out.splitlines())
    assert first == {"file": "a.jpg", "error": message}
    assert second["width"] == 40
    assert complaints(output.err) == [f"ddetr: {message}"]


def test_batches_and_precision(folder: Path, weights: str, capsys: Captured) -> None:
    for name, size in (("a", (60, 80)), ("b", (40, 40)), ("c", (60, 80))):
        image(*size).save(f"{name}.png")
    Path("broken.png").write_bytes(b"nothing")
    call = ["detect", "a.png", "broken.png", "b.png", "nowhere.png", "c.png", "--weights", weights, "--json",
            "--threshold", "0"]
    found = []
    for flags in (["--batch-size", "1"], ["--batch-size", "2"], ["--batch-size", "auto", "--precision", "bf16"]):
        assert cli.main([*call, *flags]) == 1
        found.append(json_lines(capsys))
        assert [line["file"] for line in found[-1]] == ["a.png", "broken.png", "b.png", "nowhere.png", "c.png"]
        assert ["error" in line for line in found[-1]] == [False, True, False, True, False]
    for alone, together in zip(found[0], found[1], strict=True):
        for one, other in zip(alone.get("detections", []), together.get("detections", []), strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=2e-4)
    assert cli.main([*call, "--batch-size", "0"]) == 2
    assert "--batch-size" in capsys.readouterr().err
    assert cli.main([*call, "--precision", "double"]) == 2
    assert "--precision" in capsys.readouterr().err
