import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deformable_detr import files
from deformable_detr.files import write_together, write_whole

resource = pytest.importorskip("resource")   # not on Windows, which has no pipes in folders either

# Prints a line once it is in the middle of writing, and stays there.
SLOW = """
import os, sys, time
from pathlib import Path
from deformable_detr import files
def wait(descriptor):
    print("writing", flush=True)
    time.sleep(600)
os.fsync = wait
files.write_whole(Path(sys.argv[1]), b"half")
"""


@pytest.fixture(autouse=True)
def new_folders() -> None:
    files._remove_abandoned_once.cache_clear()


def slow_writer(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "writing\n"
    process.stdout.close()
    return process


@pytest.mark.parametrize("name", ["a.json", "x" * 255, "猫" * 85, ".hidden", "line\nbreak"])
def test_a_file_is_written_and_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / "folders" / name
    for content in (b"one", b"", b"two"):
        write_whole(path, content)
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("make", [
    Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null"), lambda path: path.symlink_to("nowhere"),
    lambda path: (path.parent / "person").symlink_to(path.parent) or path.symlink_to("kept")])
def test_only_regular_files_are_replaced(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "out"
    (tmp_path / "kept").write_bytes(b"a person's")
    make(path)
    before = {entry: entry.lstat() for entry in tmp_path.iterdir()}
    with pytest.raises(OSError, match="expected a regular file or none, got a") as error:
        write_whole(path, b"ours")
    assert error.value.filename == str(path)
    assert {entry: entry.lstat() for entry in tmp_path.iterdir()} == before
    assert (tmp_path / "kept").read_bytes() == b"a person's"


def test_a_folder_that_is_a_file_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file/a/b") as error:
        write_whole(tmp_path / "file" / "a" / "b", b"")
    assert error.value.filename == str(tmp_path / "file" / "a" / "b")


@pytest.mark.parametrize("other", [None, "b", "0"])
def test_a_full_disk_leaves_the_old_files_and_nothing_else(tmp_path: Path, other: str | None) -> None:
    path, others = tmp_path / "a", [] if other is None else [tmp_path / other]
    for each in (path, *others):
        each.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            write_together({each: bytes(5000 if each == path else 5) for each in sorted((path, *others))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert error.value.filename == str(path)
    assert all(each.read_bytes() == b"old" for each in (path, *others))
    assert sorted(tmp_path.iterdir()) == sorted((path, *others))


@pytest.mark.parametrize("written_before", [False, True])
def test_what_a_killed_process_leaves_is_removed_by_the_next_write(tmp_path: Path, written_before: bool) -> None:
    path = tmp_path / "metrics.csv"
    if written_before:
        write_whole(path, b"old")
    process = slow_writer(path)
    process.kill()
    process.wait()
    assert len(list(tmp_path.iterdir())) == 1 + written_before
    write_whole(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    process = slow_writer(path)
    try:
        write_whole(path, b"new")
        assert len(list(tmp_path.iterdir())) == 2
    finally:
        process.kill()
        process.wait()


def test_leftovers_are_ours_by_their_name_and_their_writer(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = f"{files.HOST}-{os.getpid()}"
    gone = [f".a.{files.HOST}-{ended.pid}-00000000-0.unfinished", f".b.{mine}-00000000-3.unfinished",
            ".c.00000000-1-00000000-0.unfinished"]
    kept = [f".a.{mine}-{files.PROCESS}-999.unfinished", ".d.00000000-1-00000000-0.unfinished", ".metrics.csv.swp",
            "a.unfinished", f".a.{files.HOST}-1-00000000-0.unfinished"]
    for name in gone + kept:
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / gone[2], (time.time() - 2 * files.SECONDS_ABANDONED,) * 2)   # another host's
    write_whole(tmp_path / "a", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "a"])
