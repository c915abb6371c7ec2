"""`ddetr check`: the sheet never replaces what ddetr has not written."""

import os
import shutil
from pathlib import Path

import pytest

from deformable_detr import cli
from deformable_detr.marks import is_marked

Captured = pytest.CaptureFixture[str]
BLOOD_CELLS = Path(__file__).parents[1] / "fixtures" / "bccd"


@pytest.fixture
def data(folder: Path) -> str:
    return str(shutil.copytree(BLOOD_CELLS, folder / "data"))


def test_a_sheet_of_an_earlier_call_is_replaced_and_nothing_else(data: str, capsys: Captured) -> None:
    for _ in range(2):
        cli.main(["check", data])
        assert "check.png: statistics" in capsys.readouterr().out
        assert is_marked(Path("check.png"))
    Path("check.png").write_bytes(Path("check.png").read_bytes() + b"edited")
    edited = Path("check.png").read_bytes()
    for _ in range(2):
        cli.main(["check", data])
        assert "check-2.png: statistics" in capsys.readouterr().out
    assert Path("check.png").read_bytes() == edited
    assert sorted(path.name for path in Path().iterdir()) == ["check-2.png", "check.png", "data"]


@pytest.mark.parametrize("name", ["thesis.docx", "notes.txt", "link.png", "pipe.png", "photo.png"])
def test_a_sheet_over_something_else_is_refused_at_once(data: str, name: str, capsys: Captured) -> None:
    Path("photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    for file in ("thesis.docx", "notes.txt"):
        Path(file).write_text("mine")
    Path("link.png").symlink_to("notes.txt")
    os.mkfifo("pipe.png")
    assert cli.main(["check", data, "--sheet", name]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (f"ddetr: --sheet: expected a new file, or a sheet that ddetr has written, got {name}\n")
    assert Path("notes.txt").read_text() == Path("thesis.docx").read_text() == "mine"


def test_a_full_disk_leaves_the_older_sheet(data: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.main(["check", data])
    before = Path("check.png").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert cli.main(["check", data]) == 1
    assert "check.png: not written: [Errno 28] No space left on device" in capsys.readouterr().err
    assert Path("check.png").read_bytes() == before
