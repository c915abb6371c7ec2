"""The one stage of a trace at which to open a debugger, as a user names it."""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches

from deformable_detr.explain.recorder import Stage


class StopAt:
    """Answers True for the first stage that has the `wanted` name; `announce` is called with it before.

    A stage goes by its name, with or without its part or the name of its file in front: "sampling offsets",
    "decoder layer 2 boxes", "pyramid tokens".
    """

    def __init__(self, wanted: str, announce: Callable[[Stage], None]) -> None:
        self.wanted, self.announce = _words(wanted), announce
        self.is_done = False

    def __call__(self, stage: Stage) -> bool:
        if self.is_done or self.wanted not in _names(stage):
            return False
        self.is_done = True
        self.announce(stage)
        return True

    def suggestion(self, stages: Iterable[Stage]) -> str:
        """What may have been meant, for the end of an error message."""
        names = list(dict.fromkeys(name for stage in stages for name in _names(stage)))
        close = get_close_matches(self.wanted, names, n=1)
        return f"; did you mean {close[0]!r}?" if close else ""


def _names(stage: Stage) -> tuple[str, ...]:
    file = stage.path.stem
    return tuple(_words(name) for name in (stage.name, f"{stage.part} {stage.name}", f"{file} {stage.name}",
                                           f"{stage.file} {stage.part} {stage.name}"))


def _words(text: str) -> str:
    """Lower case, with one space between the words, whatever stood between them."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))
