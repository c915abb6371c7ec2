import contextlib
import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deformable_detr.images import (
    EXIF_ORIENTATION,
    FORMATS,
    ImageError,
    begins_as_image,
    is_nearly_black,
    is_single_image,
    iterate_images,
    opening,
    read_image,
)
from helpers.image_files import RAMP, as_stored, colours, refusal


def test_a_file_gives_its_pixels(tmp_path: Path) -> None:
    for suffix in ("png", "bmp", "ppm", "tif"):
        path = tmp_path / f"image.{suffix}"
        Image.fromarray(colours()).save(path)
        image = read_image(path)
        np.testing.assert_array_equal(image, colours())
        assert image.flags.writeable
        np.testing.assert_array_equal(read_image(str(path)), colours())


def test_the_start_of_a_file_tells_an_image() -> None:
    for kind in FORMATS:
        file = io.BytesIO()
        Image.new("RGB", (20, 20)).save(file, kind)
        assert begins_as_image(file.getvalue()[:16])
    for start in (b"", b"no image at all.", b"\0\0\0\x20ftypisom\0\0\2\0", b"RIFF\0\0\0\0AVI LIST"):
        assert not begins_as_image(start)


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "in truth a PNG.JPG"
    Image.fromarray(colours()).save(path, format="PNG")
    np.testing.assert_array_equal(read_image(path), colours())


def test_cmyk(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.fromarray(colours()).convert("CMYK").save(path, quality=98)
    assert np.abs(read_image(path).astype(int) - colours()).max() < 40


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

    monkeypatch.setattr(opening, "MAX_PIXELS", 50_000_000)
    header = chunk(b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT" + zlib.compress(bytes(1000))))
    assert "more than 50,000,000 pixels" in refusal(path)


def test_messages_keep_the_path_as_it_was_written(tmp_path: Path) -> None:
    assert refusal("https://host/a.jpg") == "https://host/a.jpg: no such file"
    assert refusal("./a//b.jpg").startswith("./a//b.jpg: ")
    with pytest.raises(ImageError) as error:
        read_image(tmp_path / "a\nb.jpg")
    assert error.value.reason_for(tmp_path / "a\nb.jpg") == "no such file"


@pytest.mark.parametrize("path", ["x" * 5000, "a" * 300 + ".jpg", "null\0byte.jpg", os.fsdecode(b"\xff.jpg"),
                                  chr(0xD800) + ".jpg", ""])
def test_impossible_paths_are_refused(path: str) -> None:
    refusal(path)
    refusal(Path(path))


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe.png")
    Image.fromarray(colours()).save(path)
    np.testing.assert_array_equal(read_image(path), colours())


def closed() -> Image.Image:
    image = Image.fromarray(colours())
    image.close()
    return image


@pytest.mark.parametrize("source", [
    None, 3, [colours()], io.StringIO("text"), io.BytesIO(), b"", closed(), Image.new("RGB", (0, 5)),
    np.array(["a.jpg"]), np.array([[None]]), np.zeros((4, 4), bool), np.zeros((4, 4), complex),
    np.zeros((4, 4), "M8[s]"), np.zeros((4, 4), [("r", "u1")]), np.full((4, 4), np.nan), np.full((4, 4), np.inf),
    np.float32(1), np.zeros(())])
def test_what_is_not_an_image_is_refused(source: object) -> None:
    assert refusal(source).startswith("image: ")


@pytest.mark.parametrize("make", [
    lambda image: image.to("meta"), lambda image: image.to_sparse(), lambda image: image.bool(),
    lambda image: image.long(), lambda image: image.to(torch.complex64)])
def test_tensors_without_values_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    assert refusal(make(torch.zeros(3, 4, 4))).startswith("image: ")


def test_files_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(colours()).save(path)
    content = path.read_bytes()
    written = io.BytesIO()
    written.write(content)   # its position is at the end
    with path.open("rb") as file:
        for source in (content, bytearray(content), memoryview(content), io.BytesIO(content), written, file, file):
            np.testing.assert_array_equal(read_image(source), colours())
    with (tmp_path / "bad.png").open("w+b") as file:
        file.write(b"text")
        assert refusal(file) == f"{tmp_path / 'bad.png'}: not an image, or its format is not supported"


def test_arrays() -> None:
    image = colours()
    copy = read_image(image)
    copy[:] = 0
    np.testing.assert_array_equal(read_image(image), colours())
    np.testing.assert_array_equal(read_image(RAMP)[..., 1], RAMP)
    np.testing.assert_array_equal(read_image(RAMP[..., None])[..., 2], RAMP)
    assert read_image(image[::-1, ::2]).flags.c_contiguous
    transparent = np.concatenate([image, image[..., :1]], axis=2)
    for same in (transparent, image / 255, (image / 255).astype(np.float32), transparent / np.float16(255),
                 image.astype(np.uint16) * 257,
                 (image.astype(np.uint16) * 257).astype(">u2"), np.ma.masked_array(image)):
        np.testing.assert_array_equal(read_image(same), image)
    floats, planes_first = image.astype(np.float32), image.transpose(2, 0, 1)
    for wrong in (floats, planes_first, image[:0], image[..., :2], image[0, 0], image[None]):
        assert str(wrong.dtype) in refusal(wrong)
    assert "transpose(1, 2, 0)" in refusal(planes_first)
    assert "got list" in refusal([image])


def test_tensors() -> None:
    tensor = torch.from_numpy(colours()).permute(2, 0, 1)
    for same in (tensor, tensor / 255, (tensor / 255).double().requires_grad_(), (tensor / 255) * 1.0001,
                 torch.cat([tensor, tensor[:1]]), (tensor.int() * 257).to(torch.uint16)):
        np.testing.assert_array_equal(read_image(same), colours())
    for grey in (tensor[:1], tensor[0]):
        np.testing.assert_array_equal(read_image(grey)[..., 2], colours()[..., 0])
    assert np.abs(read_image((tensor / 255).bfloat16()).astype(int) - colours()).max() <= 1
    for wrong in (tensor.permute(1, 2, 0), tensor.long(), tensor[:, :0], tensor[None], tensor[:2]):
        assert "expected a tensor (3, height, width)" in refusal(wrong)
    assert "0..1, got 0..25" in refusal(tensor.float())
    assert "nan" in refusal(torch.full((3, 2, 2), torch.nan))


def test_one_image_or_several() -> None:
    image, tensor = colours(), torch.zeros(3, 4, 5)
    for one in ("a.jpg", Path("a.jpg"), b"GIF", io.BytesIO(b"GIF"), Image.new("L", (2, 2)), image, image[..., 0],
                tensor, tensor[0], None, 3):
        assert is_single_image(one)
        assert next(iterate_images(one)) is one  # type: ignore[arg-type]
    for several in ([image], (image, image), iter([image]), (image for _ in range(2)), {"a.jpg", "b.jpg"}, image[None],
                    tensor[None], np.array(["a.jpg", "b.jpg"]), []):
        assert not is_single_image(several)
    batch = torch.stack([tensor, tensor + 1])
    assert [read_image(one).max() for one in iterate_images(batch)] == [0, 255]
    assert [read_image(one).shape for one in iterate_images(np.stack([image] * 3))] == [(24, 40, 3)] * 3


def rough_files(folder: Path) -> list[Path]:
    """Images that `PIL.Image.open` and its methods warn about."""
    paths = [folder / name for name in ("palette.png", "exif.jpg", "exif.webp", "mpo.jpg", "many.tif", "many.png")]
    Image.fromarray(colours()).quantize(200).save(paths[0], transparency=bytes(range(200)))
    entries = struct.pack("<HHIHHHHII", EXIF_ORIENTATION, 3, 1, 3, 0, 0x010F, 2, 99, 5000)
    exif = b"Exif\0\0II\x2a\0\x08\0\0\0\x02\0" + entries
    for path in paths[1:3]:
        Image.fromarray(colours()).save(path, exif=exif, quality=95)
    content = paths[1].read_bytes()
    damaged = b"MPF\0II\x2a\0" + bytes(20)
    paths[3].write_bytes(content[:2] + b"\xff\xe2" + struct.pack(">H", len(damaged) + 2) + damaged + content[2:])
    for path in paths[4:]:   # more pixels than Pillow opens without a warning
        Image.new("1", (10_000, 9_000)).save(path)
    return paths


def test_threads_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    paths = rough_files(tmp_path)
    before = warnings.filters, list(warnings.filters)
    with ThreadPoolExecutor(6) as pool:
        shapes = list(pool.map(lambda path: read_image(path).shape, paths[:4] * 12))
    for path in paths[4:]:
        assert read_image(path).shape == (9_000, 10_000, 3)
    assert warnings.filters is before[0]
    assert warnings.filters == before[1]
    assert set(shapes) == {(24, 40, 3)}
    np.testing.assert_allclose(read_image(paths[2]), as_stored(read_image(paths[2], upright=False), 3))


def test_ordinary_images_log_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    read_image(tmp_path / "deep.png")
    read_image(np.full((3, 3), 5, np.uint8))
    read_image(np.zeros((3, 3), np.uint16))
    assert not caplog.records
    assert not is_nearly_black(np.zeros((2, 2), np.uint8))


def test_images_are_light_to_import() -> None:
    program = "import deformable_detr.drawing, sys; print({'torch', 'matplotlib'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True).stdout.strip() == "set()"
