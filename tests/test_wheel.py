"""What is shipped: one wheel for every platform, with the packaged weights, without what a run leaves behind."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
MAX_BYTES = 25_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
                   cwd=PROJECT, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


def test_one_wheel_serves_every_platform(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    assert wheel.stat().st_size <= MAX_BYTES


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if name.startswith("deformable_detr/")}
    assert {name.split("/")[0] for name in set(names) - inside} == {"deformable_detr-0.1.0.dist-info"}
    assert {Path(name).suffix for name in inside} == {".py", ".jinja", ".typed", ".md", ".safetensors", ".jpg",
                                                      ".css", ".js", ".efficientnet-lite0"}
    sources = (PROJECT / "src" / "deformable_detr").rglob("*.py")
    assert {path.relative_to(PROJECT / "src").as_posix() for path in sources} <= inside


def test_weights_and_images_come_with_their_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "deformable_detr/assets/demo.safetensors" in names
    assert "deformable_detr/assets/LICENSE.efficientnet-lite0" in names
    assert len([name for name in names if name.startswith("deformable_detr/assets/pictures/")]) == 4
    assert any(name.endswith("licenses/LICENSE") for name in names)
