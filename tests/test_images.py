import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deformable_detr import images
from deformable_detr.images import ImageError, read_image

RAMP = np.arange(256, dtype=np.uint8).repeat(2).reshape(1, 512).repeat(3, axis=0)      # grey, every value


def colours(height: int = 24, width: int = 40) -> np.ndarray:
    """A smooth image without symmetry, so that every orientation differs."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 6, y * 10, 255 - x * 3 - y * 4], axis=2).astype(np.uint8)


def test_a_file_gives_its_pixels(tmp_path: Path) -> None:
    for suffix in ("png", "bmp", "ppm", "tif"):
        path = tmp_path / f"image.{suffix}"
        Image.fromarray(colours()).save(path)
        image = read_image(path)
        np.testing.assert_array_equal(image, colours())
        assert image.flags.writeable
        np.testing.assert_array_equal(read_image(str(path)), colours())


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "in truth a PNG.JPG"
    Image.fromarray(colours()).save(path, format="PNG")
    np.testing.assert_array_equal(read_image(path), colours())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_upright(tmp_path: Path, orientation: int) -> None:
    stored = {1: colours(), 2: colours()[:, ::-1], 3: colours()[::-1, ::-1], 4: colours()[::-1],
              5: colours().swapaxes(0, 1), 6: np.rot90(colours()), 7: np.rot90(colours(), 2).swapaxes(0, 1),
              8: np.rot90(colours(), -1)}[orientation]
    exif = Image.Exif()
    exif[images.EXIF_ORIENTATION] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), colours())
    np.testing.assert_array_equal(read_image(Image.open(path)), colours())
    np.testing.assert_array_equal(read_image(path, upright=False), stored)


def test_broken_exif_does_not_spoil_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(colours()).save(path, exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff", quality=95)
    assert read_image(path).shape == (24, 40, 3)


def test_cmyk(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.fromarray(colours()).convert("CMYK").save(path, quality=98)
    assert np.abs(read_image(path).astype(int) - colours()).max() < 40


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    np.testing.assert_array_equal(read_image(path), np.stack([RAMP] * 3, axis=2))


def test_float_grey_is_scaled_and_other_ranges_are_refused() -> None:
    np.testing.assert_array_equal(read_image(Image.fromarray(RAMP / np.float32(255)))[..., 0], RAMP)
    for wrong in (RAMP.astype(np.float32), RAMP.astype(np.int32) * 1000, np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(ImageError, match="must be in 0"):
            read_image(Image.fromarray(wrong))


def test_transparency_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    clear = Image.fromarray(colours())
    clear.putalpha(Image.fromarray(colours()[..., 0]))
    clear.save(path)
    np.testing.assert_array_equal(read_image(path), colours())
    Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(RAMP[:, ::-1])]).save(path)
    np.testing.assert_array_equal(read_image(path)[..., 2], RAMP)


@pytest.mark.parametrize("transparency", [3, bytes(range(200))])
def test_palette_with_alpha(tmp_path: Path, transparency: int | bytes) -> None:
    path = tmp_path / "palette.png"
    palette = Image.fromarray(colours()).quantize(200)
    palette.save(path, transparency=transparency)
    np.testing.assert_array_equal(read_image(path), np.asarray(palette.convert("RGB")))


def test_one_bit_and_extreme_sizes(tmp_path: Path) -> None:
    for size in ((1, 1), (4000, 1), (1, 4000)):
        Image.new("1", size, 1).save(tmp_path / "bits.png")
        image = read_image(tmp_path / "bits.png")
        assert image.shape == (size[1], size[0], 3)
        assert (image == 255).all()


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for suffix in ("gif", "png", "webp", "tif"):
        path = tmp_path / f"moving.{suffix}"
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert (read_image(path) == (255, 0, 0)).all()


def refusal(source: object) -> str:
    with pytest.raises(ImageError) as error:
        read_image(source)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    Image.fromarray(colours(200, 300)).save(good)
    bad = {"truncated.jpg": good.read_bytes()[:1500], "text.jpg": b"no image\n" * 50, "empty.jpg": b"",
           "header.png": b"\x89PNG\r\n\x1a\n", "noise.gif": b"GIF89a" + bytes(range(256)),
           "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        assert refusal(tmp_path / name).startswith(str(tmp_path / name) + ": ")
    assert "truncated" in refusal(tmp_path / "truncated.jpg")
    assert "empty" in refusal(tmp_path / "empty.jpg")
    assert "not an image" in refusal(tmp_path / "text.jpg")
    assert "not an image" in refusal(tmp_path / "program.eps")
    assert "no such file" in refusal(tmp_path / "absent.jpg")
    assert "folder" in refusal(tmp_path)
    assert "regular" in refusal("/dev/null" if Path("/dev/null").exists() else tmp_path)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "bmp", "jp2"])
def test_cut_files_raise_nothing_else(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(colours(100, 120)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * keep)])
    with contextlib.suppress(ImageError):
        assert read_image(path).shape == (100, 120, 3)   # some decoders fill what is missing


@pytest.mark.parametrize("side", [10_000, 11_000, 30_000, 2**31 - 1])
def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, side: int,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    def chunk(content: bytes) -> bytes:
        return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))

    monkeypatch.setattr(images, "MAX_PIXELS", 50_000_000)
    header = chunk(b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT" + zlib.compress(bytes(1000))))
    assert "more than 50,000,000 pixels" in refusal(path)


def test_arrays() -> None:
    image = colours()
    copy = read_image(image)
    copy[:] = 0
    np.testing.assert_array_equal(read_image(image), colours())
    np.testing.assert_array_equal(read_image(RAMP)[..., 1], RAMP)
    assert read_image(image[::-1, ::2]).flags.c_contiguous
    floats, planes_first = image.astype(np.float32), image.transpose(2, 0, 1)
    for wrong in (floats, planes_first, image[:0], image[..., :2], image[0, 0]):
        assert str(wrong.dtype) in refusal(wrong)
    assert "got list" in refusal([image])


def test_tensors() -> None:
    tensor = torch.from_numpy(colours()).permute(2, 0, 1)
    for same in (tensor, tensor / 255, (tensor / 255).double().requires_grad_(), (tensor / 255) * 1.0001):
        np.testing.assert_array_equal(read_image(same), colours())
    for wrong in (tensor[0], tensor.permute(1, 2, 0), tensor.long(), tensor[:, :0], tensor[None]):
        assert "expected a tensor (3, height, width)" in refusal(wrong)
    assert "0..1, got 0..25" in refusal(tensor.float())
    assert "nan" in refusal(torch.full((3, 2, 2), torch.nan))
