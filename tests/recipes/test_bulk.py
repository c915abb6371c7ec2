"""The recipe for many machines: every image once, whatever dies meanwhile."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import deformable_detr
from helpers.models import save_tiny

pytest.importorskip("ray", reason="needs ray[data], which is too large for the dev extra")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RECIPE = Path(__file__).parents[2] / "recipes" / "bulk.py"
COUNT = 400
ROWS = 4
TICK = 0.02     # seconds between two looks


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for index in range(COUNT):
        path = folder / f"part{index % 3}" / f"{index:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    (folder / "part0" / "broken.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(RECIPE), *map(str, arguments), "--workers", "2", "--rows", str(ROWS)]


@contextmanager
def started(home: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The recipe as a process, in a session of its own; what is left of it is ended."""
    source = str(Path(deformable_detr.__file__).parents[1])
    # Ray's sockets need a short path.
    with (home / "log").open("a") as log, TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as own:
        own_places = {"HOME": str(home), "RAY_TMPDIR": own, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command(*arguments), stdout=log, stderr=subprocess.STDOUT, text=True, cwd=home,
                                   env=os.environ | own_places, start_new_session=True)
        try:
            yield process
        finally:
            end_all(process)


def end_all(process: subprocess.Popen[str]) -> None:
    """Kill it and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family, timeout=30)
    process.wait()


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look again and again while the process runs."""
    while not happened():
        with suppress(subprocess.TimeoutExpired):
            process.wait(TICK)
            raise AssertionError(f"the recipe has ended with {process.returncode}")


def finished_files(out: Path) -> list[Path]:
    return sorted((out / "detections").glob("*.parquet"))


def rows_of(out: Path) -> list[dict]:
    return [row for path in finished_files(out) for row in pq.read_table(path).to_pylist()]


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that hold a detector."""
    found = []
    for each in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):    # also for one that has just ended
            if "MapWorker(MapBatches(Detect))" in " ".join(each.cmdline()):
                found.append(each)
    return found


def assert_each_once(out: Path, images: Path) -> None:
    rows = rows_of(out)
    expected = {path.relative_to(images).as_posix() for path in images.rglob("*.png")}
    assert Counter(row["file"] for row in rows) == Counter(expected)
    broken, = (row for row in rows if row["error"] is not None)
    assert broken["file"] == "part0/broken.png"
    assert broken["detections"] is None
    for row in rows:
        if row is not broken:
            assert (row["width"], row["height"], len(row["detections"])) == (80, 60, 60)
            assert set(row["detections"][0]) == {"label", "name", "score", "box"}


def test_one_worker_is_killed_in_the_middle(tmp_path: Path, images: Path, weights: Path) -> None:
    out = tmp_path / "out"
    with started(tmp_path, images, out, "--weights", weights, "--threshold", 0) as process:
        wait_until(lambda: len(finished_files(out)) >= 5, process)
        first, second = workers_of(process)
        first.send_signal(signal.SIGKILL)
        assert len(finished_files(out)) < COUNT // ROWS // 2, "it was too late to disturb anything"
        wait_until(lambda: any(each.pid not in (first.pid, second.pid) for each in workers_of(process)), process)
        assert process.wait(600) == 1       # one image is broken
    assert_each_once(out, images)
    assert f"{COUNT + 1} images, 1 of them failed" in (tmp_path / "log").read_text()


def test_all_of_it_is_killed_and_called_again(tmp_path: Path, images: Path, weights: Path) -> None:
    out = tmp_path / "out"
    with started(tmp_path, images, out, "--weights", weights, "--threshold", 0) as process:
        wait_until(lambda: len(finished_files(out)) >= 10, process)
        end_all(process)
    before = {path: path.stat().st_mtime_ns for path in (out / "detections").glob("*.parquet")}
    assert ROWS <= len(rows_of(out)) < COUNT // 2
    with started(tmp_path, images, out, "--weights", weights, "--threshold", 0) as process:
        assert process.wait(600) == 1
    assert_each_once(out, images)
    kept = [path for path, time in before.items() if path.exists() and path.stat().st_mtime_ns == time]
    assert len(kept) >= len(before) - 2     # those that were half committed are done anew
    with started(tmp_path, images, out, "--weights", weights, "--threshold", 0.5) as process:
        assert process.wait(600) == 2
    assert "expected a new folder, or one of these settings" in (tmp_path / "log").read_text()


def test_a_parquet_of_images(tmp_path: Path, images: Path, weights: Path) -> None:
    files = sorted(images.rglob("*.png"))[:20]
    pq.write_table(pa.table({"name": [path.name for path in files], "pixels": [path.read_bytes() for path in files]}),
                   tmp_path / "in.parquet")
    call = (tmp_path / "in.parquet", tmp_path / "out", "--weights", weights, "--id", "name")
    with started(tmp_path, *call) as process:
        assert process.wait(300) == 2
    assert "expected the columns name, image, got name, pixels" in (tmp_path / "log").read_text()
    with started(tmp_path, *call, "--image", "pixels") as process:
        assert process.wait(600) == 0
    assert sorted(row["file"] for row in rows_of(tmp_path / "out")) == [path.name for path in files]
