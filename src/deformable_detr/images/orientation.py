"""How an image must be turned to be upright, by its metadata.

EXIF is parsed here because Pillow warns about damaged EXIF, which is common, and a warning can only be silenced for
all threads of the process at once.
"""

import re
import struct

import PIL.Image

EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
QUARTER_TURNS = (5, 6, 7, 8)    # width and height change places

INTEGERS = {1: "B", 3: "H", 4: "I"}   # types of an EXIF entry, as `struct` spells them


def orientation_of(image: PIL.Image.Image) -> int:
    """1 for an image that is upright as stored, else the key of UPRIGHT that turns it."""
    try:
        stored = getattr(image, "stored_orientation", None)   # a TIFF opened by `open_image`
        exif = image.info.get("exif")
        if stored is None and not exif:   # a PNG's EXIF may follow the pixels: Pillow reads on for it
            stored = image.getexif().get(EXIF_ORIENTATION)
        found = stored or _in_exif(exif) or _in_xmp(image)
    except Exception:   # damaged metadata does not spoil the pixels
        return 1
    return found if found in UPRIGHT else 1


def upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    """(height, width) of an opened image after it is turned upright."""
    width, height = image.size
    return (width, height) if orientation_of(image) in QUARTER_TURNS else (height, width)


def turned_upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image turned by its orientation; itself when it is upright."""
    orientation = orientation_of(image)
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _in_exif(exif: bytes | None) -> int | None:
    """The orientation in the first directory of EXIF."""
    while exif and exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if not exif or exif[:2] not in (b"II", b"MM"):
        return None
    order = "<" if exif[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", exif, 4)
    (num_entries,) = struct.unpack_from(f"{order}H", exif, directory)
    for start in range(directory + 2, directory + 2 + 12 * num_entries, 12):
        tag, kind, _ = struct.unpack_from(f"{order}HHI", exif, start)
        if tag == EXIF_ORIENTATION and kind in INTEGERS:
            return struct.unpack_from(order + INTEGERS[kind], exif, start + 8)[0]
    return None


def _in_xmp(image: PIL.Image.Image) -> int | None:
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
    xmp = xmp.encode(errors="replace") if isinstance(xmp, str) else xmp
    match = re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp)
    return int(match[1]) if match else None
