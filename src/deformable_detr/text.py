"""Text from files that are not trusted: what a name may hold, and how it is printed."""

import re
import reprlib

# No name may hold one: a terminal would obey it.
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


def is_unicode(text: str) -> bool:
    """Whether it can be written: JSON can spell half a character, and names on a disk can be any bytes."""
    return text.encode(errors="ignore").decode() == text


def printable(text: str) -> str:
    """The text in one line, with escapes for what a terminal would obey."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def quoted(value: object) -> str:
    """A value as Python writes it, shortened: it comes from a file that is not trusted."""
    return _SHORT.repr(value)
