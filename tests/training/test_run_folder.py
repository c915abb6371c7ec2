"""The folder of a run: whose files it may replace, who may write there, and what a killed run leaves."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.training.fingerprint import fingerprint
from deformable_detr.training.recipe import Recipe
from deformable_detr.training.run_folder import GROUPS, FolderUsedError, RunFolder, SettingsChangedError
from deformable_detr.training.run_lock import run_lock
from deformable_detr.training.state import read_state

Train = Callable[..., int]
SETTINGS: dict[str, dict] = {group: {} for group in GROUPS}


@pytest.mark.parametrize("kept", ["best.safetensors", "last.safetensors", "metrics.csv", "state.safetensors"])
def test_another_run_is_not_overwritten(tmp_path: Path, kept: str) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(SETTINGS)   # all that a run leaves that ended before its first save
    folder.check_new()
    (tmp_path / kept).touch()
    with pytest.raises(FolderUsedError, match="holds another run"):
        folder.check_new()


@pytest.mark.parametrize(("name", "content"), [
    ("config.yaml", "database: mine\n"), ("config.yaml", "just text"), ("config.yaml", "model: {}\nrecipe: 3\n"),
    ("report.html", "<h1>My thesis</h1>"), ("curves.png", "a person's"), ("validation.png", "a person's")])
def test_what_belongs_to_no_run_is_not_overwritten(train: Train, tmp_path: Path, name: str, content: str,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(content)
    assert train("--out", tmp_path / "out", "--epochs", 1) == 2
    assert f"{name}: would be overwritten" in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == [content]
    (tmp_path / "out" / "state.safetensors").touch()
    if name != "config.yaml":   # nor by a run that is resumed before it has written any
        RunFolder(tmp_path / "out").begin(SETTINGS)
        with pytest.raises(FolderUsedError, match=f"{name}: would be overwritten"):
            RunFolder(tmp_path / "out").check_same(SETTINGS, force=True)


def test_only_unfinished_files_of_runs_are_swept(tmp_path: Path) -> None:
    names = [".metrics.csv." + "0a" * 16, ".state.safetensors." + "ff" * 16, ".curves.png." + "12" * 16]
    others = [".metrics.csv", ".notes.txt." + "0a" * 16, ".metrics.csv.mine", "metrics.csv." + "0a" * 16]
    for name in names + others:
        (tmp_path / name).touch()
    RunFolder(tmp_path).sweep()
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_a_run_sweeps_what_a_killed_one_left(train: Train, tmp_path: Path) -> None:
    (tmp_path / (".metrics.csv." + "0a" * 16)).touch()
    assert train("--out", tmp_path, "--epochs", 1) == 0
    left = tmp_path / (".state.safetensors." + "0b" * 16)
    left.touch()
    assert train("--out", tmp_path, "--epochs", 1, "--resume") == 0
    assert not list(tmp_path.glob(".*"))


HOLD = """
import sys, time
from pathlib import Path
from deformable_detr.training.run_lock import run_lock
with run_lock(Path(sys.argv[1])) as is_ours:
    print(is_ours, flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process, which holds the folder until its standard input is closed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_second_run_is_refused_while_the_first_is_there(train: Train, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    with holder(out) as process:
        assert train("--out", out, "--epochs", 1) == 2
        assert f"{out}: another process is writing a run into it" in capsys.readouterr().err
        with run_lock(tmp_path / "other") as is_ours:
            assert is_ours
        process.communicate()
    assert not list(out.iterdir())
    assert train("--out", out, "--epochs", 1) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_a_killed_run_leaves_its_folder_open(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert list(tmp_path.iterdir())
    with run_lock(tmp_path) as is_ours:
        assert is_ours
    assert not list(tmp_path.iterdir())


def test_a_lock_is_lost_to_nobody_while_it_changes_hands(tmp_path: Path) -> None:
    """Many processes in turn: never two at once, though each removes the file."""
    program = """
import sys, time
from pathlib import Path
from deformable_detr.training.run_lock import run_lock
folder, done = Path(sys.argv[1]), 0
while done < 20:
    with run_lock(folder) as is_ours:
        if is_ours:
            (folder / "inside").touch(exist_ok=False)
            (folder / "inside").unlink()
            done += 1
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


def test_a_setting_that_is_younger_than_the_run_had_its_default(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(SETTINGS)
    folder.state.touch()
    assert folder.check_same({**SETTINGS, "recipe": {"flip": "horizontal"}, "data": {"train": "x"}}, force=False) == []
    with pytest.raises(SettingsChangedError, match=r"recipe\.flip: the run has 'horizontal', got 'none'"):
        folder.check_same({**SETTINGS, "recipe": {"flip": "none"}}, force=False)
    assert Recipe().flip == "horizontal"


def changed(content: dict, what: str) -> None:
    if what == "an object is moved":
        content["annotations"][0]["bbox"][0] += 1
    if what == "an object is removed":
        del content["annotations"][0]
    if what == "an image is renamed":
        content["images"][4]["file_name"] = "0.png"


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("what", ["an object is moved", "an object is removed", "an image is renamed"])
def test_other_data_has_another_fingerprint(squares: Path, split: str, what: str) -> None:
    def read() -> Annotations:
        return DetectionDataset(squares, split).annotations

    before = fingerprint(read())
    assert before == fingerprint(read())
    assert before.startswith("5 images, 4 objects, ")
    content = json.loads((squares / f"{split}.json").read_text())
    changed(content, what)
    (squares / f"{split}.json").write_text(json.dumps(content))
    assert fingerprint(read()) != before


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_run_is_not_resumed_with_other_data(train: Train, squares: Path, tmp_path: Path, split: str,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 1) == 0
    written = yaml.safe_load((out / "config.yaml").read_text())["data"]
    content = json.loads((squares / f"{split}.json").read_text())
    changed(content, "an object is removed")
    (squares / f"{split}.json").write_text(json.dumps(content))
    assert train("--out", out, "--epochs", 2, "--resume") == 2
    assert f"data.{split}: the run has '{written[split]}', got '5 images, 3 objects, " in capsys.readouterr().err
    assert read_state(out / "state.safetensors").status.epoch == 1
    assert train("--out", out, "--epochs", 2, "--resume", "--force") == 0
    assert read_state(out / "state.safetensors").status.epochs_since_best == (1 if split == "train" else 0)
