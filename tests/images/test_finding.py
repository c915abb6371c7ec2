import glob
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from deformable_detr.images import ImageError, find_images, num_frames, open_image

INSIDE = ["a.jpg", "B.PNG", "b.tif", ".hidden.jpg", "notes.txt", "in/c.jpg", "in/deep/d.jpg", "in/.secret/e.jpg",
          "z/f.jpg", "z/in/g.jpg"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "three" / "folders" / "down" / "g"   # so that `..` does not meet the files of other tests
    for name in INSIDE:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")
    return tree


def names(source: str | Path, tree: Path) -> list[str]:
    return [path.relative_to(tree).as_posix() for path in find_images(source)]


def test_files_folders_and_globs(tree: Path) -> None:
    assert names(tree, tree) == ["B.PNG", "a.jpg", "b.tif"]
    assert names(f"{tree}/*.jpg", tree) == ["a.jpg"]
    assert names(f"{tree}/**/d.*", tree) == ["in/deep/d.jpg"]
    assert find_images(tree / "notes.txt").paths == (tree / "notes.txt",)
    assert len(find_images(str(tree))) == 3


@pytest.mark.parametrize(("source", "message"), [
    ("absent.jpg", "absent.jpg: no such file"), ("https://host/a.jpg", "https://host/a.jpg: no such file"),
    ("*.gif", "no images there"), ("x" * 5000, "no such file"), ("null\0byte", "no such file")])
def test_missing_images_are_an_error(source: str, message: str) -> None:
    with pytest.raises(ImageError, match=message.replace("*", r"\*")):
        find_images(source)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(parts=st.lists(st.sampled_from(["**", "*", "in", "z", "i*", "*.jpg", "?.*", "[ab].*", "..", "g", ".s*"]),
                      min_size=1, max_size=4))
def test_globs_match_what_python_matches(tree: Path, parts: list[str]) -> None:
    pattern = "/".join([str(tree), *parts])
    if not glob.has_magic(pattern):
        return
    images = {os.path.realpath(match) for match in glob.glob(pattern, recursive=True)  # noqa: PTH207
              if match.lower().endswith((".jpg", ".png", ".tif")) and not Path(match).name.startswith(".")}
    try:
        found = find_images(pattern).paths
    except ImageError:
        found = ()
    assert sorted(os.path.realpath(path) for path in found) == sorted(images)


def test_links_in_circles_are_entered_once(tree: Path) -> None:
    for number in range(6):   # every order of them would be another path
        (tree / "in" / f"loop{number}").symlink_to(tree)
        (tree / "z" / f"loop{number}").symlink_to(tree / "in")
    everything = ["B.PNG", "a.jpg", "b.tif", "in/c.jpg", "in/deep/d.jpg", "z/f.jpg", "z/in/g.jpg"]
    assert names(f"{tree}/**", tree) == everything
    assert names(f"{tree}/**/**/*", tree) == everything
    assert names(f"{tree}/**/*.jpg", tree) == [name for name in everything if name.endswith("jpg")]


def test_a_file_is_found_once_under_its_own_name(tree: Path) -> None:
    (tree / "0.jpg").symlink_to(tree / "a.jpg")
    (tree / "1.jpg").symlink_to(tree / "in" / "c.jpg")
    (tree / "2.jpg").symlink_to(tree / "in" / "c.jpg")
    assert names(tree, tree) == ["1.jpg", "B.PNG", "a.jpg", "b.tif"]
    assert names(f"{tree}/**/*.jpg", tree) == ["a.jpg", "in/c.jpg", "in/deep/d.jpg", "z/f.jpg", "z/in/g.jpg"]
    (only,) = find_images(f"{tree}/in/../a*.jpg")
    assert os.path.realpath(only) == str(tree / "a.jpg")


def test_what_is_left_out_is_reported(tree: Path) -> None:
    for name in ("1.heic", "2.HEIC", "x.nef", ".hidden.heic"):
        (tree / name).write_bytes(b"")
    (tree / "folder.jpg").mkdir()
    (tree / "gone.jpg").symlink_to(tree / "nowhere")
    found = find_images(tree)
    assert [path.name for path in found] == ["B.PNG", "a.jpg", "b.tif"]
    assert [entry.path.name for entry in found.left_out] == ["1.heic", "2.HEIC", "folder.jpg", "gone.jpg", "x.nef"]
    assert found.left_out_summary() == ("2 x .heic (format not supported), 1 x .nef (format not supported), "
                                        "1 x link to nowhere, 1 x not a file")
    assert find_images(tree / "in").left_out_summary() == ""
    with pytest.raises(ImageError, match=r"no images there \(2 x .heic \(format not supported\) left out\)"):
        find_images(f"{tree}/*.[hH][eE]*")


def test_frames_are_counted(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 90, 200)]
    for suffix in ("gif", "png", "webp", "tif"):
        path = tmp_path / f"several.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with open_image(path) as image:
            assert num_frames(image) == 3
            image.load()
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - 10).max() <= 3   # still the first
        frames[0].save(path)
        with open_image(path) as image:
            assert num_frames(image) == 1


def test_copies_of_a_page_are_no_frames(tmp_path: Path) -> None:
    """A TIFF of a map holds reduced copies of its image, a phone's JPEG a depth map or a preview."""
    page, small = Image.new("L", (64, 64)), Image.new("L", (32, 32))
    small.encoderinfo = {"tiffinfo": {254: 1}}  # type: ignore[attr-defined]
    page.save(tmp_path / "pyramid.tif", save_all=True, append_images=[small, small])
    page.convert("RGB").save(tmp_path / "two.mpo", save_all=True, append_images=[small.convert("RGB")])
    for name in ("pyramid.tif", "two.mpo"):
        with open_image(tmp_path / name) as image:
            assert num_frames(image) == 1
