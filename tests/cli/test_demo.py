"""`ddetr demo`: the first command of a new user."""

from pathlib import Path

import pytest

from deformable_detr import cli
from deformable_detr.images import read_image
from deformable_detr.weights.sources import packaged_images

Captured = pytest.CaptureFixture[str]


def test_every_packaged_image_is_drawn_and_summarised(tmp_path: Path, capsys: Captured) -> None:
    assert cli.main(["demo", "--out", str(tmp_path / "found")]) == 0
    output = capsys.readouterr()
    head, *rows = output.out.split("\n\n")[0].splitlines()
    assert head.split() == ["image", "seconds", "found", "(best", "score)"]
    images = packaged_images()
    assert [row.split()[0] for row in rows] == [path.name for path in images]
    assert not any(row.endswith("nothing") for row in rows)
    assert str(tmp_path / "found") in output.out
    for path in images:
        drawn, given = read_image(tmp_path / "found" / path.name), read_image(path)
        assert drawn.shape == given.shape
        assert abs(drawn.astype(int) - given).max() > 50


def test_batches_in_half_precision(tmp_path: Path, capsys: Captured) -> None:
    assert cli.main(["demo", "--out", str(tmp_path), "--precision", "bf16", "--batch-size", "2"]) == 0
    rows = capsys.readouterr().out.split("\n\n")[0].splitlines()[1:]
    for row, path in zip(rows, packaged_images(), strict=True):
        assert row.startswith(path.name)
        assert path.stem in row.split()[2:]


def test_the_images_of_others_stay(tmp_path: Path) -> None:
    mine = tmp_path / packaged_images()[0].name
    mine.write_bytes(b"mine")
    for _ in range(2):
        assert cli.main(["demo", "--out", str(tmp_path)]) == 0
        assert mine.read_bytes() == b"mine"
        assert len(list(tmp_path.iterdir())) == len(packaged_images()) + 1


@pytest.mark.parametrize(("call", "message"), [
    (["demo", "--device", "abacus"], "abacus"),
    (["demo", "--threshold", "2"], "threshold"),
    (["demo", "photo.jpg"], "photo.jpg"),
    (["demo", "--out", __file__], "test_demo"),
])
def test_wrong_calls(call: list[str], message: str, capsys: Captured) -> None:
    assert cli.main(call) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("ddetr: ")
    assert output.err.count("\n") == 1
    assert message in output.err
