import io
import sys

import pytest

from deformable_detr import progress
from deformable_detr.progress import Progress, no_progress, show_progress


@pytest.mark.parametrize("shown", [no_progress, show_progress])
def test_the_items_come_as_they_are_asked_for(shown: Progress) -> None:
    taken = []
    items = shown((taken.append(number) or number for number in range(5)), 5, "counting")
    assert taken == []
    assert next(iter(items)) == 0
    assert taken == [0]
    assert list(items) == [1, 2, 3, 4]
    assert list(shown([], 0, "nothing")) == []


def test_elsewhere_than_on_a_terminal_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    assert list(show_progress("abc", 3, "reading", lambda: "loss 1.5")) == list("abc")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == ["reading 1/3, 0:00:00 left, loss 1.5", "reading 2/3, 0:00:00 left, loss 1.5"]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert list(show_progress(iter([1, 2]), 2, "reading", lambda: "loss 1.5")) == [1, 2]
    assert "reading" in terminal.getvalue()
