"""Text from files that are not trusted: what a name may contain, and how it is printed."""

import re
import reprlib

# No name may contain one: a terminal would obey it.
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


def is_unicode(text: str) -> bool:
    """Whether it can be encoded: JSON can spell half a character, and a file's name can be any bytes."""
    return text.encode(errors="ignore").decode() == text


def printable(text: str) -> str:
    """The text in one line, with escapes for what a terminal would obey or cannot encode."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def quoted(value: object) -> str:
    """A value as Python writes it, shortened to about 120 characters."""
    return _SHORT.repr(value)
