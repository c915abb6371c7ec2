"""A font for any text: class names come in every script, and no two may look the same."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt32
from PIL import ImageFont

LOGGER = logging.getLogger(__name__)

# Fonts that map every letter to the same few boxes, or to pictures that only their own systems can draw.
USELESS = ("lastresort", "adobeblank", "coloremoji", "color emoji")
# Plainer fonts come first: those with fewer of these in their names.
STYLES = ("bold", "italic", "oblique", "black", "light", "thin", "condensed", "mono", "serif", "emoji")
UNSEEN = " \u200c\u200d"   # spaces, and what joins or separates letters, leave no mark
PROBE_SIZE = 20            # pixels


@dataclass(frozen=True)
class Lettering:
    """A text as it can be drawn, and the font that has its letters."""

    text: str           # letters that no font has are written as their code points: U+732B
    file: Path | None   # None: printable ASCII, for which any font will do

    def font(self, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        """The font for Pillow, in pixels. Matplotlib takes `file`: `axes.text(x, y, lettering.text, font=file)`."""
        return ImageFont.truetype(self.file, size) if self.file else ImageFont.load_default(size)


@lru_cache(maxsize=4096)
def lettering(text: str) -> Lettering:
    """The font with the most letters of a text: DejaVu Sans, Noto Sans CJK if installed, else one of the system's."""
    if text.isascii() and text.isprintable():
        return Lettering(text, None)
    wanted = np.unique(np.array([ord(letter) for letter in text if _is_letter(letter)], dtype=np.uint32))
    best, best_file = np.zeros(len(wanted), dtype=bool), _dejavu()
    for file in _files():
        found = np.isin(wanted, _letters(file))
        if found.sum() > best.sum():
            best, best_file = found, file
        if found.all():
            break
    font = ImageFont.truetype(best_file, PROBE_SIZE)
    drawn = {letter for letter in map(chr, wanted[best].tolist())
             if letter in UNSEEN or font.getmask(letter).getbbox() is not None}
    if not drawn.issuperset(text):
        _warn_once()
    return Lettering("".join(letter if letter in drawn else f"U+{ord(letter):04X}" for letter in text), best_file)


def _is_letter(letter: str) -> bool:
    """Whether a font may draw it: neither a control character nor half a character."""
    return letter.isprintable() or letter in UNSEEN


@lru_cache(maxsize=2048)
def _letters(file: Path) -> UInt32[np.ndarray, "letters"]:
    """The code points that a font has, none if it cannot be drawn at any size."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(file, PROBE_SIZE)   # fails for fonts of a fixed size
        return np.array(sorted(FT2Font(str(file)).get_charmap()), dtype=np.uint32)
    except Exception:   # any file may be named like a font
        return np.array([], dtype=np.uint32)


def _files() -> Iterator[Path]:
    yield _dejavu()
    package = find_spec("noto_cjk_sans_otc")
    if package and package.origin:
        yield Path(package.origin).with_name("NotoSansCJK-Regular.ttc")
    yield from _system_files()


def _dejavu() -> Path:
    """Latin, Greek, Cyrillic, Hebrew, Arabic and more; comes with Matplotlib."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@lru_cache(maxsize=1)
def _system_files() -> tuple[Path, ...]:
    from matplotlib.font_manager import findSystemFonts

    def rank(file: Path) -> tuple[int, str]:
        return sum(style in file.name.lower() for style in STYLES), str(file)

    files = [Path(name) for name in findSystemFonts()]
    return tuple(sorted((file for file in files if not any(word in file.name.lower() for word in USELESS)), key=rank))


@lru_cache(maxsize=1)
def _warn_once() -> None:
    LOGGER.warning("no font has some of the letters of a name, which are drawn as code points (U+732B); install a font "
                   "of their script, or the extra deformable-detr[fonts] for Chinese, Japanese and Korean")
