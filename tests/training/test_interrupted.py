"""Runs that are killed, or run out of disk or memory: a resumed one ends as an uninterrupted one."""

import errno
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deformable_detr.papers import DeformableDETR
from deformable_detr.structures import ImageBatch, Predictions
from deformable_detr.training import state
from deformable_detr.training.machine import reason_to_stop
from deformable_detr.training.run_folder import GROUPS, RunError, RunFolder
from deformable_detr.training.state import read_state
from deformable_detr.weights import load
from helpers.programs import run_program

pytestmark = pytest.mark.usefixtures("undrawn")

Train = Callable[..., int]
Flags = list[str]

DISTURBED = Path(__file__).parent / "disturbed.py"


@pytest.fixture
def flags(train_flags: Callable[..., Flags]) -> Callable[..., Flags]:
    """Of a run with workers, chance and saves between epochs."""
    return lambda *added: train_flags("--batch-size", 1, "--num-workers", 1, "--dropout", 0.1, "--save-steps", 2,
                                      "--ema-decay", 0.9, "--schedule", "cosine", *added)


def disturbed(what: str, detail: object, flags: Flags) -> subprocess.CompletedProcess[str]:
    return run_program([str(DISTURBED), what, str(detail), *flags])


def undisturbed(flags: Flags) -> None:
    ended = run_program(["-m", "deformable_detr", *flags])
    assert ended.returncode == 0, ended.stderr


def assert_same_ending(first: Path, second: Path) -> None:
    """The same weights and numbers bit for bit."""
    (one, _), (other, _) = load(first / "last.safetensors"), load(second / "last.safetensors")
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    state, others = (read_state(path / "state.safetensors") for path in (first, second))
    assert state.status == others.status
    assert all(torch.equal(tensor, others.tensors[name]) for name, tensor in state.tensors.items())
    assert (first / "metrics.csv").read_bytes() == (second / "metrics.csv").read_bytes()


def kill_and_resume(flags: Callable[..., Flags], folder: Path, kills: int, epochs: int) -> None:
    whole, parts = folder / "whole", folder / "parts"
    undisturbed(flags("--out", whole, "--epochs", epochs))
    for number in range(kills):
        resume = ["--resume"] if (parts / "state.safetensors").exists() else []
        result = disturbed("kill", number, flags("--out", parts, "--epochs", epochs, *resume))
        assert result.returncode == -9, result.stderr
    undisturbed(flags("--out", parts, "--epochs", epochs, "--resume"))
    assert_same_ending(whole, parts)


def test_a_killed_run_continues_as_an_uninterrupted_one(flags: Callable[..., Flags], tmp_path: Path) -> None:
    kill_and_resume(flags, tmp_path, kills=1, epochs=2)


@pytest.mark.parametrize("preset", ["detr", "dab-detr", "dab-deformable-detr", "dino-4scale"])
def test_each_paper_learns_and_continues_bit_for_bit(preset: str, train_flags: Callable[..., Flags],
                                                     tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def flags(out: Path, *more: object) -> Flags:
        return train_flags("--preset", preset, "--epochs", 3, "--batch-size", 1, "--dropout", 0.1, "--save-steps", 2,
                           "--learning-rate", 1e-3, "--backbone-learning-rate", 1e-3, "--out", out, *more)

    undisturbed(flags(whole))
    result = disturbed("kill", 0, flags(parts))
    assert result.returncode == -9, result.stderr
    undisturbed(flags(parts, "--resume"))
    assert_same_ending(whole, parts)
    losses = [float(row["loss"]) for row in RunFolder(whole).rows()]
    assert losses[-1] < losses[0], losses


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_ten_times(flags: Callable[..., Flags], tmp_path: Path) -> None:
    kill_and_resume(flags, tmp_path, kills=10, epochs=12)


def test_a_full_disk_loses_nothing(flags: Callable[..., Flags], train: Train, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = disturbed("fill-disk", "3,100000", flags("--out", parts, "--epochs", 1))
    assert result.returncode == 1
    assert "File too large" in result.stderr
    assert "Traceback" not in result.stderr
    status = read_state(parts / "state.safetensors").status
    assert (status.epoch, status.step) == (0, 2)
    assert not list(parts.glob(".*"))
    undisturbed(flags("--out", parts, "--epochs", 1, "--resume"))
    undisturbed(flags("--out", whole, "--epochs", 1))
    assert_same_ending(whole, parts)


def test_a_folder_that_becomes_read_only(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 1) == 0
    before = (out / "state.safetensors").read_bytes()

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(state, "write_whole", read_only)
    assert train("--out", out, "--epochs", 2, "--resume") == 1
    error = capsys.readouterr().err
    assert f"Read-only file system; what was saved is in {out}, and --resume goes on from there" in error
    assert (out / "state.safetensors").read_bytes() == before


def test_an_out_folder_that_is_a_file(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert train("--out", tmp_path / "file" / "run") == 2
    assert "file" in capsys.readouterr().err


def test_a_lost_worker_is_reported(flags: Callable[..., Flags], tmp_path: Path) -> None:
    result = disturbed("lose-worker", "", flags("--out", tmp_path / "run", "--epochs", 2))
    assert result.returncode == 1
    assert "a process that reads images was killed by the system" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_finished_run_takes_more_epochs(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 1) == 0
    assert train("--out", out, "--epochs", 1, "--resume") == 0
    # A call without --preset chooses a warm-up that follows from the epochs.
    assert train("--out", out, "--epochs", 2, "--warmup-steps", 1, "--resume") == 0
    assert read_state(out / "state.safetensors").status.epoch == 2


def test_other_settings_are_named_or_forced(train: Train, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 1) == 0
    changed = ("--out", out, "--epochs", 2, "--learning-rate", 0.1, "--batch-size", 2, "--resume")
    assert train(*changed) == 2
    error = capsys.readouterr().err
    assert "recipe.learning_rate: the run has 0.0002, got 0.1" in error
    assert "step.pictures: the run has 3, got 2" in error
    assert train(*changed, "--force") == 0
    assert "going on with another setting: recipe.learning_rate" in capsys.readouterr().err


def test_another_model_cannot_be_forced(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 1) == 0
    settings = (out / "config.yaml").read_bytes()
    assert train("--out", out, "--epochs", 2, "--resume", "--force", "--ffn-width", 16) == 2
    assert "cannot be resumed" in capsys.readouterr().err
    assert (out / "config.yaml").read_bytes() == settings


@pytest.mark.parametrize("damaged", ["", "model: 5", "- a list", "model: {}\nrecipe:\n"])
def test_settings_that_are_none_are_named(train: Train, tmp_path: Path, damaged: str,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"")
    (tmp_path / "config.yaml").write_text(damaged)
    assert train("--out", tmp_path, "--resume") == 2
    assert "config.yaml: no run to resume: expected the settings of model, " in capsys.readouterr().err


def test_a_table_that_a_spreadsheet_has_saved(tmp_path: Path) -> None:
    table = "epoch,loss,AP,AP50\r\n1,3.5,0.1,nan\r\n"
    folder = RunFolder(tmp_path)
    folder.metrics.write_bytes(b"\xef\xbb\xbf" + table.encode())   # a byte order mark in front
    assert folder.rows() == [{"epoch": "1", "loss": "3.5", "AP": "0.1", "AP50": "nan"}]
    settings: dict[str, dict] = {group: {} for group in GROUPS}
    folder.begin(settings)
    folder.state.touch()
    folder.check_same(settings, force=False)
    for content in (table.replace(",", ";").encode(), table.encode("utf-16"), b"\xff\xfe\x00", b"epoch,loss,AP\n1,2\n",
                    table.replace("3.5", "").encode()):
        folder.metrics.write_bytes(content)
        with pytest.raises(RunError, match=r"metrics\.csv: expected the table as the run has written it"):
            folder.check_same(settings, force=True)


def test_what_does_not_fit_is_processed_in_halves(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", tmp_path / "roomy", "--epochs", 2, "--dropout", 0) == 0
    forward = DeformableDETR.forward

    def cramped(self: DeformableDETR, batch: ImageBatch) -> Predictions:
        if self.training and len(batch.sizes) > 1:
            raise torch.OutOfMemoryError("no room for 3 images")
        return forward(self, batch)

    monkeypatch.setattr(DeformableDETR, "forward", cramped)
    assert train("--out", tmp_path / "cramped", "--epochs", 2, "--dropout", 0) == 0
    assert "out of memory: processing 1 images at a time" in capsys.readouterr().err
    roomy, halved = ([float(row["loss"]) for row in RunFolder(tmp_path / name).rows()] for name in ("roomy", "cramped"))
    assert halved == pytest.approx(roomy, rel=1e-4)

    monkeypatch.setattr(DeformableDETR, "forward", lambda *_: (_ for _ in ()).throw(
        torch.OutOfMemoryError("no room at all")))
    assert train("--out", tmp_path / "none", "--epochs", 1) == 1
    assert "no room at all" in capsys.readouterr().err


def test_a_cpu_that_runs_out_of_memory_is_reported() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**58)   # more than any machine can address
    reason = reason_to_stop(raised.value)
    assert reason is not None
    assert reason.startswith("out of memory (")
    assert "lower batch_size or the size of the images, or set recompute" in reason
    assert reason_to_stop(RuntimeError("a fault of the program")) is None


def test_a_model_that_is_larger_than_the_memory(train: Train, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", tmp_path / "run", "--ffn-width", 10**14) == 2
    error = capsys.readouterr().err
    assert "out of memory before the first step" in error
    assert "Traceback" not in error
