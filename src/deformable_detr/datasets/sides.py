"""Class names that depend on how an image is turned: mirrored, a "left arrow" becomes a right one."""

import re
from collections.abc import Sequence

LEFT_RIGHT = re.compile(r"(turn|keep|go|face|hand|arrow)?(left|right)(wards?|hand|handed|most)?|links|rechts|linkse?|"
                        r"rechtse?|linke[rsnm]?|rechte[rsnm]?|gauche|droite?|"
                        r"(izquierd|derech|sinistr|destr|esquerd|direit)[ao]|vänster|höger|"
                        r"(в|на)?(лев|прав)(о|ый|ая|ое)|(counter|anti)?clockwise|左|右")  # noqa: RUF001
MIRRORED = {"l": "r", "r": "l"}
UP_DOWN = re.compile(r"up|down|upwards?|downwards?|upside|upper|lower|top|bottom|oben|unten|haut|bas|arriba|abajo|"
                     r"(counter|anti)?clockwise")
COMPASS = re.compile(r"(north|south|east|west)\w*|horizontal|vertical")


def left_right_names(names: Sequence[str]) -> list[str]:
    """Those that a mirror image would make wrong; "arrow_l" is one where there is an "arrow_r"."""
    words = {name: tuple(_words(name)) for name in names}
    mirrored = {tuple(MIRRORED.get(word, word) for word in of_name) for of_name in words.values()}
    found = {*_with_word(names, LEFT_RIGHT), *(name for name, of_name in words.items()
                                               if of_name in mirrored and MIRRORED.keys() & set(of_name))}
    return [name for name in names if name in found]


def up_down_names(names: Sequence[str]) -> list[str]:
    """Those that turning an image upside down would make wrong."""
    return _with_word(names, UP_DOWN)


def direction_names(names: Sequence[str]) -> list[str]:
    """Those that a rotation would make wrong."""
    found = {*left_right_names(names), *_with_word(names, UP_DOWN), *_with_word(names, COMPASS)}
    return [name for name in names if name in found]


def _with_word(names: Sequence[str], pattern: re.Pattern[str]) -> list[str]:
    return [name for name in names if any(pattern.fullmatch(word) for word in _words(name))]


def _words(name: str) -> list[str]:
    """The words of a name in lower case: of "turnLeft", "turn_left" and "Turn left" the same."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[左右]|[^\W\d_]+", spaced.casefold())
