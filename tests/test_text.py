import pytest

from deformable_detr.text import CONTROL_CHARACTER, is_unicode, printable, quoted


@pytest.mark.parametrize(("text", "shown"), [
    ("Größe 猫", "Größe 猫"), ("a\nb\x1b[31m", r"a\nb\x1b[31m"), ("\udcff", r"\udcff"),
    ("\u202egpj.exe", r"\u202egpj.exe")])
def test_printed_text_cannot_command_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).encode().decode() == shown


def test_half_a_character_is_no_unicode() -> None:
    assert is_unicode("猫 \n")
    assert not is_unicode("a\ud800")


def test_values_are_quoted_shortly() -> None:
    assert quoted("a\n") == r"'a\n'"
    assert len(quoted("x" * 10_000)) < 130


def test_control_characters_are_found() -> None:
    assert all(CONTROL_CHARACTER.search(f"a{letter}b") for letter in "\0\n\x1b\x7f\x85\u2028")
    assert not CONTROL_CHARACTER.search("Größe 猫")
