"""`ddetr detect` of videos, addresses and standard input, beside files: one stream of lines, in order."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from deformable_detr import cli
from deformable_detr.detect.runtimes import TorchRuntime
from deformable_detr.detect.video import Frame, Video
from deformable_detr.images import read_image
from deformable_detr.marks import is_marked
from deformable_detr.structures import ImageBatch, Predictions
from helpers.models import TINY_INFO
from helpers.videos import GREEN, RED, Stub, save_video, with_squares
from helpers.web_server import Page, Server, running

Captured = pytest.CaptureFixture[str]
SIZE = (48, 64)


@pytest.fixture
def weights(tiny_weights: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is found is where the colours are."""
    stub = Stub(TINY_INFO.preprocessing.mean, TINY_INFO.preprocessing.deviation)

    def run(_: TorchRuntime, batch: ImageBatch) -> Predictions:
        return stub.run(batch)

    monkeypatch.setattr(TorchRuntime, "run", run)
    return tiny_weights


def squares(count: int) -> Iterator[np.ndarray]:
    """A red square goes to the right, a green one to the left; they pass at a distance."""
    for index in range(count):
        share = index / max(1, count - 1)
        yield with_squares(SIZE, [(round(share * 50), 8, RED), (round((1 - share) * 50), 30, GREEN)])


def image(colour: tuple[int, int, int] = RED) -> Image.Image:
    return Image.fromarray(with_squares(SIZE, [(20, 20, colour)]))


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def run(capsys: Captured, *arguments: str, code: int = 0) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of `detect --json`, and those of standard error."""
    assert cli.main(["detect", *arguments, "--json"]) == code
    output = capsys.readouterr()
    errors = [line for line in output.err.splitlines() if "compiling" not in line]
    return [json.loads(line) for line in output.out.splitlines()], errors


def frames_of(path: Path | str) -> list[Frame]:
    with Video(path) as video:
        return [frame for frame in video if isinstance(frame, Frame)]


def give_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))  # type: ignore[arg-type]


def test_a_line_for_each_frame_in_order(folder: Path, weights: str, capsys: Captured) -> None:
    save_video(folder / "clip.mp4", squares(50))
    lines, errors = run(capsys, "clip.mp4", "--weights", weights)
    assert errors == []
    assert [line["frame"] for line in lines] == list(range(50))
    assert [line["seconds"] for line in lines] == pytest.approx([index / 25 for index in range(50)])
    assert list(lines[0]) == ["file", "frame", "seconds", "width", "height", "detections"]
    assert (lines[0]["file"], lines[0]["width"], lines[0]["height"]) == ("clip.mp4", 64, 48)
    left = [next(each["box"][0] for each in line["detections"] if each["label"] == 0) for line in lines]
    assert left == pytest.approx([index / 49 * 50 for index in range(50)], abs=3)
    assert sorted(path.name for path in folder.iterdir()) == ["clip.mp4"]


def test_every_nth_frame(folder: Path, weights: str, capsys: Captured) -> None:
    save_video(folder / "clip.mp4", squares(50))
    lines, _ = run(capsys, "clip.mp4", "--weights", weights, "--every", "20", "--out", "out")
    assert [line["frame"] for line in lines] == [0, 20, 40]
    assert [frame.seconds for frame in frames_of("out/clip.mp4")] == pytest.approx([0, 0.8, 1.6], abs=1e-3)
    assert cli.main(["detect", "clip.mp4", "--weights", weights, "--every", "0"]) == 2
    assert "--every" in capsys.readouterr().err


def test_a_drawn_video(folder: Path, weights: str, capsys: Captured) -> None:
    save_video(folder / "clip.mkv", squares(30))
    assert cli.main(["detect", "clip.mkv", "--weights", weights]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("clip.mkv: 30 frames, ")
    assert output.out.endswith(f" -> {Path('detections/clip.mp4')}\n")
    assert "30 cat" in output.out
    assert "30 dog" in output.out
    assert is_marked(Path("detections/clip.mp4"))
    original, drawn = frames_of("clip.mkv"), frames_of("detections/clip.mp4")
    assert [frame.seconds for frame in drawn] == pytest.approx([frame.seconds for frame in original], abs=2e-3)
    changed = np.abs(drawn[15].read().astype(int) - original[15].read())
    assert changed.max() > 60
    # a second call replaces it, and neither is taken for a source
    assert cli.main(["detect", ".", "detections/*", "--weights", weights]) == 1
    output = capsys.readouterr()
    assert output.out.startswith("clip.mkv: 30 frames")
    assert "no images there but ddetr's own drawings" in output.err
    assert [path.name for path in Path("detections").iterdir()] == ["clip.mp4"]


def test_videos_of_others_are_not_overwritten(folder: Path, weights: str, capsys: Captured) -> None:
    (folder / "out").mkdir()
    theirs = save_video(folder / "out" / "clip.mp4", squares(5)).read_bytes()
    save_video(folder / "clip.avi", squares(5), codec="mpeg4")
    assert cli.main(["detect", "clip.avi", "out/clip.mp4", "--weights", weights, "--out", "out"]) == 0
    assert "-> out" in capsys.readouterr().out
    assert sorted(path.name for path in Path("out").iterdir()) == ["clip-2.mp4", "clip-3.mp4", "clip.mp4"]
    assert Path("out/clip.mp4").read_bytes() == theirs


def test_tracks_are_stable(folder: Path, weights: str, capsys: Captured) -> None:
    pytest.importorskip("trackers", reason="needs the extra video-track", exc_type=ImportError)
    save_video(folder / "clip.mp4", squares(60))
    image().save("still.png")
    lines, _ = run(capsys, "clip.mp4", "still.png", "clip.mp4", "--weights", weights, "--track")
    assert len(lines) == 61     # each source once
    assert "track" not in lines[60]["detections"][0]
    tracks: dict[int, set[int]] = {0: set(), 1: set()}
    for line in lines[1:60]:
        for each in line["detections"]:
            tracks[each["label"]].add(each["track"])
    assert {len(each) for each in tracks.values()} == {1}
    assert tracks[0] != tracks[1]
    assert cli.main(["detect", "clip.mp4", "--weights", weights, "--track"]) == 0
    assert ": tracked 1 " in capsys.readouterr().out
    drawn = frames_of("detections/clip.mp4")
    assert len(drawn) == 60


def test_tracking_needs_its_library(folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    assert cli.main(["detect", "clip.mp4", "--track"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "--track: needs the library trackers" in output.err
    assert "pip install 'deformable-detr[video-track]'" in output.err
    assert output.err.count("\n") == 1


def test_videos_need_their_library(folder: Path, weights: str, capsys: Captured,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    save_video(folder / "clip.mp4", squares(5))
    image().save("a.png")
    monkeypatch.setitem(sys.modules, "av", None)
    lines, errors = run(capsys, "clip.mp4", "a.png", "--weights", weights, code=1)
    assert "pip install 'deformable-detr[video]'" in lines[0]["error"]
    assert lines[1]["file"] == "a.png"
    assert len(errors) == 1


def test_broken_frames_are_named_and_passed(folder: Path, weights: str, capsys: Captured) -> None:
    generator = np.random.default_rng(0)
    noise = (generator.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(40))
    content = bytearray(save_video(folder / "clip.avi", noise, codec="mjpeg").read_bytes())
    middle = len(content) // 2
    content[middle:middle + 300] = bytes(300)
    (folder / "clip.avi").write_bytes(content)
    lines, errors = run(capsys, "clip.avi", "--weights", weights, "--out", "out", code=1)
    assert [line["frame"] for line in lines] == list(range(40))
    broken = [line for line in lines if "error" in line]
    assert 1 <= len(broken) <= 2
    assert list(broken[0]) == ["file", "frame", "seconds", "error"]
    first = broken[0]["frame"]
    assert broken[0]["error"].startswith(f"clip.avi: frame {first}: ")
    assert len(errors) == 1
    assert errors[0].startswith(f"ddetr: clip.avi: frames left out: {len(broken)} ({first}")
    assert len(frames_of("out/clip.avi".replace("avi", "mp4"))) == 40 - len(broken)


def test_truncated_and_empty_videos_are_named(folder: Path, weights: str, capsys: Captured) -> None:
    whole = save_video(folder / "whole.mkv", squares(60)).read_bytes()
    Path("cut.mkv").write_bytes(whole[:len(whole) * 2 // 3])
    whole = save_video(folder / "whole.mp4", squares(60)).read_bytes()
    Path("cut.mp4").write_bytes(whole[:len(whole) * 2 // 3])
    save_video(folder / "none.avi", [], codec="mpeg4")
    Path("empty.mp4").touch()
    image().save("a.png")
    lines, errors = run(capsys, "cut.mkv", "cut.mp4", "none.avi", "empty.mp4", "a.png", "--weights", weights, code=1)
    last = [line for line in lines if "frame" not in line]
    assert [line["file"] for line in last] == ["cut.mkv", "cut.mp4", "none.avi", "empty.mp4", "a.png"]
    assert [next(iter(line.keys() - {"file"})) for line in last[:4]] == ["error"] * 4
    assert "truncated: it ends after" in last[0]["error"]
    assert 20 <= len(lines) - len(last) < 60
    assert [error.split(": ")[1] for error in errors] == ["cut.mkv", "cut.mp4", "none.avi", "empty.mp4"]


def test_problems_come_before_the_weights(folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr("deformable_detr.detect.detector.Detector.__init__", load)
    Path("text.mp4").write_text("no video")
    sources = ["absent.jpg", "http://127.0.0.1:1/a.jpg", "text.mp4", "http://"]
    lines, errors = run(capsys, *sources, code=1)
    assert [line["file"] for line in lines] == sources
    assert len(errors) == 4


def test_an_address_a_video_and_a_folder_in_one_call(folder: Path, weights: str, capsys: Captured) -> None:
    Path("shots").mkdir()
    for name in ("a", "b"):
        image().save(f"shots/{name}.png")
    Path("shots/broken.png").write_text("no image")
    save_video(folder / "shots" / "c.mp4", squares(3))
    clip = save_video(folder / "clip.mp4", squares(5)).read_bytes()
    stream = save_video(folder / "live.ts", squares(6)).read_bytes()
    pages = {"/photo": Page(encoded(image(GREEN), "JPEG")), "/clip": Page(clip),
             "/live": Page(stream, says_length=False), "/page.jpg": Page(b"<!doctype html>", "text/html"),
             "/short": Page(clip, claimed_length=len(clip) + 1), "/moved": Page(status=302, location="/photo"),
             "/big": Page(b"\x89PNG\r\n\x1a\n", claimed_length=2**40)}
    with running(Server(pages)) as server:
        url = server.url
        rest = [f"{url}/{path}" for path in ("clip", "live", "page.jpg", "absent", "short", "big", "moved")]
        lines, errors = run(capsys, f"{url}/photo", "clip.mp4", "shots", *rest, "--weights", weights, code=1)
    names = [line["file"] for line in lines]
    assert names == [f"{url}/photo", *["clip.mp4"] * 5, *(f"shots/{name}" for name in ("a.png", "b.png", "broken.png")),
                     *["shots/c.mp4"] * 3, *[f"{url}/clip"] * 5, *[f"{url}/live"] * 6, f"{url}/page.jpg",
                     f"{url}/absent", f"{url}/short", f"{url}/big", f"{url}/moved"]
    problems = {line["file"].removeprefix(url): line["error"] for line in lines if "error" in line}
    assert list(problems) == ["shots/broken.png", "/page.jpg", "/absent", "/short", "/big"]
    assert "expected an image or a video, got text/html" in problems["/page.jpg"]
    assert "404 Not Found" in problems["/absent"]
    assert "the connection ended after" in problems["/short"]
    assert "too large: expected at most 256 MB" in problems["/big"]
    assert len(errors) == 5
    assert [each["name"] for each in lines[0]["detections"]] == ["dog"]


def test_drawings_of_what_has_no_file(folder: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give_input(monkeypatch, encoded(image()))
    clip = save_video(folder / "clip.mkv", squares(5)).read_bytes()
    with running(Server({"/..%2f..%2fevil.png?x=1": Page(encoded(image())), "/": Page(encoded(image())),
                         "/clip.mkv": Page(clip)})) as server:
        sources = [f"{server.url}{path}" for path in ("/..%2f..%2fevil.png?x=1", "/", "/clip.mkv")]
        assert cli.main(["detect", *sources, "-", "--weights", weights, "--out", "out"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["127.0.0.jpg", "clip.mp4", "evil.png", "stdin.jpg"]
    assert read_image("out/evil.png").shape == (*SIZE, 3)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.ts"])
def test_a_video_on_standard_input(folder: Path, weights: str, name: str, capsys: Captured,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    give_input(monkeypatch, save_video(folder / name, squares(7)).read_bytes())
    lines, errors = run(capsys, "-", "-", "--weights", weights)
    assert [(line["file"], line["frame"]) for line in lines] == [("-", index) for index in range(7)]
    assert errors == []


def test_standard_input_without_anything(folder: Path, weights: str, capsys: Captured,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    for content, message in ((b"", "nothing came"), (b"no video at all " * 100, "not a video")):
        give_input(monkeypatch, content)
        lines, _ = run(capsys, "-", "--weights", weights, code=1)
        assert message in lines[0]["error"]
        assert lines[0]["file"] == "-"
    monkeypatch.setattr(sys, "stdin", None)
    assert "got nothing" in run(capsys, "-", "--weights", weights, code=1)[0][0]["error"]


def test_files_are_known_by_their_content(folder: Path, weights: str, capsys: Captured) -> None:
    save_video(folder / "a.mp4", squares(3)).rename("clip")
    save_video(folder / "stream.ts", squares(30))
    image().save("a.png")
    Path("a.png").rename("photo")
    Path("notes.txt").write_text("nothing")
    lines, _ = run(capsys, "clip", "photo", "stream.ts", "notes.txt", "--weights", weights, code=1)
    assert [line["file"] for line in lines] == ["clip"] * 3 + ["photo"] + ["stream.ts"] * 30 + ["notes.txt"]
    assert "not an image" in lines[-1]["error"]


def test_an_interrupted_video_is_kept_as_far_as_it_came(folder: Path, weights: str, capsys: Captured,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    save_video(folder / "clip.mp4", squares(50))
    taken = 0
    real = TorchRuntime.run

    def interrupt(runtime: TorchRuntime, batch: ImageBatch) -> Predictions:
        nonlocal taken
        taken += 1
        if taken == 20:
            raise KeyboardInterrupt
        return real(runtime, batch)

    monkeypatch.setattr(TorchRuntime, "run", interrupt)
    assert cli.main(["detect", "clip.mp4", "--weights", weights, "--batch-size", "1"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(frames_of("detections/clip.mp4")) == 19


def test_a_full_disk_ends_the_drawing_and_not_the_detections(folder: Path, weights: str, capsys: Captured,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    save_video(folder / "clip.mp4", squares(10))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deformable_detr.detect.video.writing.VideoWriter.write", full)
    lines, errors = run(capsys, "clip.mp4", "--weights", weights, "--out", "out", code=1)
    assert [line["frame"] for line in lines] == list(range(10))
    assert len(errors) == 1
    assert "No space left on device" in errors[0]
    assert list(Path("out").iterdir()) == []


def test_progress_says_how_fast_it_is(folder: Path, weights: str, capsys: Captured,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    save_video(folder / "clip.mp4", squares(10))
    save_video(folder / "live.ts", squares(10))
    monkeypatch.setattr("deformable_detr.progress.SECONDS_BETWEEN_LINES", 0)
    _, errors = run(capsys, "clip.mp4", "--weights", weights)
    assert errors[0].startswith("detecting 1/10, ")
    assert all(error.endswith(" frames/s") for error in errors)
    _, errors = run(capsys, "live.ts", "--weights", weights)
    assert errors[0].startswith("detecting 1, ")


def memory_grown(folder: Path, weights: str, frames: int, warm: int) -> tuple[int, int]:
    """MiB between frame `warm` and the last one of a video, drawn and tracked; and how many lines there were."""
    save_video(folder / "long.mp4", (with_squares(SIZE, [(index % 50, 8, RED)]) for index in range(frames)))
    process = psutil.Process()
    used: list[int] = []
    printed = 0

    def write(line: str) -> None:
        nonlocal printed
        assert json.loads(line)["frame"] == printed
        printed += 1
        if printed in (warm, frames):
            used.append(process.memory_info().rss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deformable_detr.cli.detect.print_line", write)
        assert cli.main(["detect", "long.mp4", "--weights", weights, "--json", "--out", "out", "--track"]) == 0
    return (used[1] - used[0]) >> 20, printed


def test_memory_stays_flat(folder: Path, weights: str) -> None:
    pytest.importorskip("trackers", reason="needs the extra video-track", exc_type=ImportError)
    grown, printed = memory_grown(folder, weights, 400, 200)
    assert printed == 400
    assert grown < 20


@pytest.mark.slow
def test_memory_stays_flat_over_10_000_frames(folder: Path, weights: str) -> None:
    """`pytest -m slow tests/cli/test_detect_sources.py -s` prints by how much it grew."""
    pytest.importorskip("trackers", reason="needs the extra video-track", exc_type=ImportError)
    grown, printed = memory_grown(folder, weights, 10_000, 1000)
    print(f"from frame 1000 to frame 10000 the process grew by {grown} MiB")
    assert printed == 10_000
    assert grown < 20
