import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deformable_detr.images import EXIF_ORIENTATION, open_image, orientation_of, read_image, upright_size
from helpers.image_files import as_stored, colours

PALETTE = Image.fromarray(colours()).quantize(60)
GREY = colours()[..., 0]
# Pillow's mode, its pixels upright as an array, and as RGB.
MODES = {
    "1": (GREY > 100, np.where(GREY > 100, 255, 0)),
    "L": (GREY, GREY),
    "I;16": (GREY.astype(np.uint16) * 257, GREY),
    "I;16B": ((GREY.astype(np.uint16) * 257).astype(">u2"), GREY),
    "I": (GREY.astype(np.int32), GREY),
    "F": (GREY / np.float32(255), GREY),
    "P": (np.asarray(PALETTE), np.asarray(PALETTE.convert("RGB"))),
    "LA": (np.stack([GREY, GREY], axis=2), GREY),
    "RGB": (colours(), colours()),
    "RGBA": (np.concatenate([colours(), colours()[..., :1]], axis=2), colours()),
}


def rgb(pixels: np.ndarray) -> np.ndarray:
    return (np.stack([pixels] * 3, axis=2) if pixels.ndim == 2 else pixels).astype(np.uint8)


def tiff(mode: str, pixels: np.ndarray, orientation: int, compression: str) -> bytes:
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette(PALETTE.getpalette() or [])
    assert image.mode == mode
    file = io.BytesIO()
    image.save(file, "TIFF", compression=compression, tiffinfo={EXIF_ORIENTATION: orientation})
    return file.getvalue()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", MODES)
def test_tiffs_are_turned_upright(tmp_path: Path, mode: str, compression: str) -> None:
    pixels, expected = MODES[mode]
    path = tmp_path / "turned.tif"
    for orientation in range(1, 9):
        path.write_bytes(tiff(mode, as_stored(pixels, orientation), orientation, compression))
        for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
            np.testing.assert_array_equal(read_image(source), rgb(expected))
            np.testing.assert_array_equal(read_image(source, upright=False), as_stored(rgb(expected), orientation))
        for opened in (Image.open(path), Image.open(io.BytesIO(path.read_bytes()))):
            with opened:
                np.testing.assert_array_equal(read_image(opened), rgb(expected))
        with open_image(path) as image:
            assert orientation_of(image) == orientation
            assert upright_size(image) == (24, 40)
            assert image.size == ((24, 40) if orientation > 4 else (40, 24))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif"])
def test_exif_turns_the_image_upright(tmp_path: Path, suffix: str) -> None:
    exact = suffix in ("png", "webp")
    path = tmp_path / f"turned.{suffix}"
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        stored = as_stored(colours(), orientation)
        Image.fromarray(stored).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {"quality": 98}))
        with Image.open(path) as opened:
            for upright in (read_image(path), read_image(opened)):
                np.testing.assert_allclose(upright.astype(int), colours(), atol=0 if exact else 24)
        np.testing.assert_allclose(read_image(path, upright=False).astype(int), stored, atol=0 if exact else 24)
        with open_image(path) as image:
            assert upright_size(image) == (24, 40)


def test_orientation_of_xmp_counts_where_exif_has_none(tmp_path: Path) -> None:
    path = tmp_path / "turned.webp"
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for exif in (b"", b"Exif\0\0II\x2a\0\x08\0\0\0\0\0"):
        Image.fromarray(as_stored(colours(), 6)).save(path, lossless=True, xmp=xmp, exif=exif)
        np.testing.assert_array_equal(read_image(path), colours())
    Image.fromarray(as_stored(colours(), 6)).save(tmp_path / "turned.tif", tiffinfo={700: xmp})
    np.testing.assert_array_equal(read_image(tmp_path / "turned.tif"), colours())


@pytest.mark.parametrize("exif", [
    b"Exif\0\0MM\0\x2a\xff\xff\xff\xff", b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0",
    b"Exif\0\0II\x2a\0\x08\0\0\0\xff\xff", b"Exif\0\0" * 3, b"Exif\0\0what is this"])
def test_damaged_exif_does_not_spoil_the_pixels(tmp_path: Path, exif: bytes) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(colours()).save(path, exif=exif, quality=95)
    assert read_image(path).shape == (24, 40, 3)
