"""What this package wrote is recognised by its content; nothing else is overwritten."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deformable_detr.images import read_image
from deformable_detr.marks import free_path, is_marked, marked, may_write, write_marked

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(params=[("PNG", {}), ("JPEG", {"quality": 95}), ("JPEG", {"progressive": True, "comment": b"mine"})],
                ids=["png", "jpeg", "progressive"])
def content(request: pytest.FixtureRequest) -> bytes:
    kind, options = request.param
    return encoded(kind, **options)


def test_a_marked_file_has_the_same_pixels_and_is_recognised(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "drawing"
    write_marked(path, content)
    np.testing.assert_array_equal(read_image(path), read_image(content))
    assert is_marked(path)
    write_marked(path, content)      # its own may be replaced
    assert b"written by deformable-detr" in path.read_bytes()[:100]


def test_what_was_changed_since_is_no_longer_ours(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "drawing"
    whole = marked(content)
    changed = bytearray(whole)
    changed[-20] ^= 1
    for other in (content, bytes(changed), whole[:-1], whole + b"0", whole.replace(b"deformable", b"Deformable"), b"",
                  b"notes: written by deformable-detr 00000000", whole[:40], whole[:2], content[:3]):
        path.write_bytes(other)
        assert not is_marked(path)
        with pytest.raises(FileExistsError, match="that ddetr has not written"):
            write_marked(path, content)
        assert path.read_bytes() == other


def test_other_kinds_of_files_are_not_marked() -> None:
    """A mark of JPEG inside a style sheet broke its first rule."""
    with pytest.raises(ValueError, match="expected PNG, JPEG or HTML"):
        marked(b":root { color-scheme: light dark; }")


def test_pages_are_marked_too(tmp_path: Path) -> None:
    page, path = marked(b"<!DOCTYPE html>\n<title>a</title>"), tmp_path / "page.html"
    assert page.startswith(b"<!DOCTYPE html>")
    path.write_bytes(page)
    assert is_marked(path)
    for other in (page.replace(b"<title>a", b"<title>b"), b"<!DOCTYPE html>\n<title>a</title>", b"notes"):
        path.write_bytes(other)
        assert not is_marked(path)


def test_links_folders_and_pipes_are_not_ours(content: bytes, tmp_path: Path) -> None:
    write_marked(tmp_path / "a.png", content)
    (tmp_path / "link.png").symlink_to("a.png")
    (tmp_path / "nowhere.png").symlink_to("absent.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("link.png", "nowhere.png", "folder.png", "pipe.png"):
        assert not may_write(tmp_path / name)


def test_a_free_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "check.png"
    assert free_path(path) == path
    path.write_bytes(content)
    assert free_path(path) == tmp_path / "check-2.png"
    write_marked(tmp_path / "check-2.png", content)
    assert free_path(path) == tmp_path / "check-2.png"
    (tmp_path / "check-2.png").write_text("mine")
    assert free_path(path) == tmp_path / "check-3.png"
