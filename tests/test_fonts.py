import logging
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deformable_detr import fonts
from deformable_detr.fonts import Lettering, lettering

DEJAVU = "DejaVuSans.ttf"
NAMES = ["cat", "猫", "狗", "кот", "пёс", "חתול", "🐱", "猫 0.99", "a\0", "\ud800"]


@pytest.fixture(autouse=True)
def no_other_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only the fonts of the dependencies, whatever this machine has."""
    monkeypatch.setattr(fonts, "find_spec", lambda name: None)
    monkeypatch.setattr(fonts, "_system_files", lambda: ())
    yield
    for cached in (lettering, fonts._warn_once):
        cached.cache_clear()


@pytest.fixture
def cat_font(tmp_path: Path) -> Path:
    """A font in which 猫 is a square and 狗 is blank, as letters are in colour fonts."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    empty = TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat", "dog"])
    builder.setupCharacterMap({ord("猫"): "cat", ord("狗"): "dog"})
    builder.setupGlyf({".notdef": empty, "cat": pen.glyph(), "dog": empty})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "cat", "dog"), (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Cats", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "Cats.ttf")
    return tmp_path / "Cats.ttf"


@pytest.mark.parametrize(("text", "drawn", "file"), [
    ("cat 0.99", "cat 0.99", None), ("", "", None), ("Größe", "Größe", DEJAVU), ("кот", "кот", DEJAVU),
    ("猫 0.99", "U+732B 0.99", DEJAVU), ("кот 猫", "кот U+732B", DEJAVU), ("😀", "😀", DEJAVU),
    ("a\0\n", "aU+0000U+000A", DEJAVU), ("\ud800", "U+D800", DEJAVU), ("\u202ea", "U+202Ea", DEJAVU)])
def test_letters_that_no_font_has_become_code_points(text: str, drawn: str, file: str | None) -> None:
    result = lettering(text)
    assert result.text == drawn
    assert (result.file.name if result.file else None) == file


def test_a_system_font_has_what_others_lack(monkeypatch: pytest.MonkeyPatch, cat_font: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_system_files", lambda: (tmp_path / "broken.ttf", tmp_path / "gone.ttf", cat_font))
    assert lettering("猫") == Lettering("猫", cat_font)
    assert lettering("狗") == Lettering("U+72D7", cat_font)
    assert lettering("кот").text == "кот"


def test_system_fonts_are_sorted_plain_ones_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    names = ["/f/NotoSans-Bold.ttf", "/f/NotoSans-Regular.ttf", "/f/LastResort.otf", "/f/NotoColorEmoji.ttf"]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: names)
    fonts._system_files.cache_clear()
    assert [file.name for file in fonts._system_files()] == ["NotoSans-Regular.ttf", "NotoSans-Bold.ttf"]
    fonts._system_files.cache_clear()


def test_missing_letters_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for name in ("cat", "кот", "猫", "狗", "猫"):
            lettering(name)
    assert len(caplog.records) == 1


def test_names_in_plots_differ() -> None:
    """Matplotlib's warning about missing letters would be an error here."""
    pixels = []
    for name in map(lettering, NAMES):
        figure = Figure(figsize=(2, 1))
        canvas = FigureCanvasAgg(figure)
        figure.text(0, 0.5, name.text, font=name.file, fontsize=9)
        canvas.draw()
        pixels.append(np.asarray(canvas.buffer_rgba()).copy())
    assert all((first != second).any() for first, second in combinations(pixels, 2))
