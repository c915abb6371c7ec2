import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deformable_detr.images import ImageError, is_deep, is_nearly_black, open_image, read_image
from helpers.image_files import RAMP, colours


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    np.testing.assert_array_equal(read_image(path), np.stack([RAMP] * 3, axis=2))
    with open_image(path) as image:
        assert is_deep(image)


@pytest.mark.parametrize("values", [RAMP.astype(np.int32), RAMP.astype(np.int32) * 257])
def test_wide_integers_are_bytes_where_they_can_be(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "wide.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "wide.tif")[..., 1], RAMP)


def test_float_grey_is_scaled_and_other_ranges_are_refused() -> None:
    np.testing.assert_array_equal(read_image(Image.fromarray(RAMP / np.float32(255)))[..., 0], RAMP)
    for wrong in (RAMP.astype(np.float32), RAMP.astype(np.int32) * 1000, -RAMP.astype(np.int32)):
        with pytest.raises(ImageError, match=r"must be in 0.*grey_range"):
            read_image(Image.fromarray(wrong))


@pytest.mark.parametrize("high", [1023, 4095, 255])
def test_a_range_is_black_to_white(tmp_path: Path, high: int) -> None:
    values = np.rint(RAMP.astype(float) * high / 255).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    for source in (path, values, values.astype(np.int64), values.astype(np.float32), Image.fromarray(values)):
        for grey_range in ((0, high), "auto"):
            grey = read_image(source, grey_range=grey_range)[..., 2]
            np.testing.assert_array_equal(grey, np.rint(values * (255 / high)))
    clipped = read_image(path, grey_range=(high * 0.25, high * 0.5))[0, :, 0]
    assert (clipped[:128] == 0).all()
    assert (clipped[258:] == 255).all()


def test_signed_values_have_a_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-1024, 0, 1024, 3000]], np.int32)).save(tmp_path / "scan.tif")
    assert read_image(tmp_path / "scan.tif", grey_range=(-1024, 1024))[0, :, 0].tolist() == [0, 128, 255, 255]
    assert read_image(np.full((2, 2), 7.0), grey_range="auto").max() == 0


def test_bytes_are_not_rescaled() -> None:
    np.testing.assert_array_equal(read_image(colours(), grey_range=(0, 10)), colours())


@pytest.mark.parametrize("grey_range", ["Auto", (1, 1), (2, 1), (0, np.nan), (0, np.inf), (1, 2, 3)])
def test_wrong_ranges_are_refused(grey_range: object) -> None:
    with pytest.raises((ValueError, TypeError)) as error:   # the second where types in signatures are checked
        read_image(colours(), grey_range=grey_range)  # type: ignore[arg-type]
    assert not isinstance(error.value, ImageError)


def deep_colours() -> bytes:
    """A PNG of 12 bits in 16, which Pillow does not write."""
    import struct
    import zlib

    def chunk(content: bytes) -> bytes:
        return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))

    rows = np.repeat((RAMP.astype(np.uint32) * 4095 // 255).astype(">u2")[..., None], 3, axis=2)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 512, 3, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, (b"IHDR" + header, b"IDAT" + zlib.compress(pixels), b"IEND")))


def test_nearly_black_results_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(np.rint(RAMP * (4095 / 255)).astype(np.uint16)).save(tmp_path / "grey.png")
    Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "grey.tif")
    (tmp_path / "colours.png").write_bytes(deep_colours())
    with caplog.at_level(logging.WARNING):
        for name in ("grey.png", "grey.tif", "colours.png") * 2:
            assert is_nearly_black(read_image(tmp_path / name))
            with open_image(tmp_path / name) as image:
                assert is_deep(image)
        read_image(tmp_path / "grey.png", grey_range=(0, 4095))
    assert [record.getMessage().split(": nearly black")[0] for record in caplog.records] == [
        str(tmp_path / name) for name in ("grey.png", "grey.tif", "colours.png")]


def test_dark_bytes_are_not_deep() -> None:
    file = io.BytesIO()
    Image.fromarray(RAMP // 16).save(file, "PNG")
    with open_image(file.getvalue()) as image:
        assert not is_deep(image)
