from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deformable_detr import cli
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo, save
from helpers.models import small_model

BLOOD_CELLS = Path(__file__).parents[1] / "fixtures" / "bccd"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(folder: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save("a.png")
    return folder


def test_a_page(folder: Path, tiny_weights: str, capsys: Captured) -> None:
    assert cli.main(["explain", "a.png", "--weights", tiny_weights, "--out", "deep/page.html", "--threshold", "0",
                     "--quiet"]) == 0
    page = (folder / "deep" / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    output = capsys.readouterr()
    assert output.out.startswith("a.png: ")
    assert output.out.endswith(" -> deep/page.html\n")
    assert output.err == ""
    assert cli.main(["explain", "a.png", "--weights", tiny_weights]) == 0
    assert (folder / "explanation.html").is_file()
    assert "a.png: nothing found -> explanation.html" in capsys.readouterr().out


def test_why_was_it_not_found(folder: Path, tiny_weights: str, capsys: Captured) -> None:
    assert cli.main(["explain", "a.png", "--weights", tiny_weights, "--why", "10,20.5"]) == 0
    first, heading, *rows = capsys.readouterr().out.splitlines()
    assert first == "a.png at 10,20.5: nothing found there; the queries that came nearest:"
    assert heading.split()[:3] == ["query", "class", "score"]
    assert len(rows) == 5
    assert all("below the threshold 0.50" in row for row in rows)
    assert not (folder / "explanation.html").exists()
    assert cli.main(["explain", "a.png", "--weights", tiny_weights, "--why", "10,20", "--threshold", "0",
                     "--out", "page.html"]) == 0
    assert "found" in capsys.readouterr().out
    assert (folder / "page.html").is_file()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--why", "10"], "--why: expected X,Y in pixels, such as 120,80, got '10'"),
    (["--why", "a,b"], "--why: expected X,Y in pixels, such as 120,80, got 'a,b'"),
    (["--why", "30,0"], "--why: expected a place in the image of 30 x 40 pixels, got 30,0"),
    (["--why", "nan,0"], "--why: expected a place in the image of 30 x 40 pixels, got nan,0"),
    (["--out", "a.png"], "--out: expected a file whose name ends in .html, got a.png"),
    (["--out", "folder.html"], "--out: expected a file whose name ends in .html, got folder.html"),
    (["--device", "abacus"], "device: 'abacus' is not available here"),
    (["--threshold", "2"], "threshold"),
])
def test_wrong_calls(folder: Path, tiny_weights: str, arguments: list[str], message: str, capsys: Captured) -> None:
    (folder / "folder.html").mkdir()
    before = (folder / "a.png").read_bytes()
    assert cli.main(["explain", "a.png", "--weights", tiny_weights, *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert (folder / "a.png").read_bytes() == before


def test_an_image_that_cannot_be_read(folder: Path, tiny_weights: str, capsys: Captured) -> None:
    assert cli.main(["explain", "absent.png", "--weights", tiny_weights]) == 1
    output = capsys.readouterr()
    assert "absent.png" in output.err
    assert output.err.count("\n") == 1
    assert not (folder / "explanation.html").exists()


@pytest.mark.parametrize("call", [["explain", "a.png", "--out"], ["trace", "a.png", "--html"],
                                  ["eval", str(BLOOD_CELLS), "--report"]], ids=["explain", "trace", "eval"])
def test_only_our_own_pages_are_overwritten(folder: Path, tmp_path: Path, capsys: Captured, call: list[str]) -> None:
    info = ModelInfo(("Platelets", "RBC", "WBC"), (1, 2, 3), Preprocessing(size=64, max_size=96))
    save(tmp_path / "cells.safetensors", small_model(num_classes=3), info)
    call = [*call, "page.html", "--weights", "cells.safetensors"]
    page = folder / "page.html"
    page.write_text("<!DOCTYPE html><p>mine")
    assert cli.main(call) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"ddetr: {call[2]}: expected a new file, or a page that ddetr has written, got page.html"]
    assert page.read_text() == "<!DOCTYPE html><p>mine"
    page.unlink()
    assert [cli.main(call), cli.main(call)] == [0, 0]       # its own may be replaced
    page.write_text(page.read_text().replace("</title>", "!</title>"))
    assert cli.main(call) == 2
