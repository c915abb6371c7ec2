import argparse
import datetime
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from deformable_detr.weights import WeightsError, read_checkpoint

STATE = {"transformer.level_embed": torch.arange(6.0).reshape(2, 3), "query_embed.weight": torch.ones(2)}


def official(**entries: object) -> dict[str, Any]:
    """A checkpoint as the published code writes it."""
    settings = argparse.Namespace(lr=2e-4, lr_drop_epochs=None, lr_backbone_names=["backbone.0"], masks=False)
    return {"model": STATE, "optimizer": {"state": {}, "param_groups": [{"lr": 2e-4}]}, "epoch": 49,
            "args": settings, **entries}


class Runs:
    """What a malicious pickle holds: reading it writes a file."""

    def __init__(self, call: Callable, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple:
        return self.call, self.arguments


def write_mark(path: str) -> None:
    Path(path).write_text("the pickle ran")


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        read_checkpoint(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_official_checkpoints_are_read(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "official.pth"
    for content in (official(), STATE):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        state = read_checkpoint(path)
        assert list(state) == list(STATE)
        assert all(torch.equal(state[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pth"
    for evil in (Runs(write_mark, str(mark)), Runs(exec, f"open({str(mark)!r}, 'w')"), Runs(eval, "1 + 1"),
                 Runs(getattr, argparse.Namespace, "__init__")):
        torch.save(official(args=evil), path, _use_new_zipfile_serialization=zipped)
        assert "which could run code" in refusal(path)
        assert not mark.exists()
    path.write_bytes(pickle.dumps(Runs(write_mark, str(mark))))
    refusal(path)
    assert not mark.exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    assert "no such file" in refusal(path)
    assert "folder" in refusal(tmp_path)
    torch.save(official(), path)
    whole = path.read_bytes()
    for content in (b"", b"text", b"PK\x03\x04", whole[:-30], whole[:200]):
        path.write_bytes(content)
        assert "not a PyTorch checkpoint, or a damaged one" in refusal(path)


@pytest.mark.parametrize("content", [
    {}, [1], 5, {"model": {}}, {"model": 5}, {"epoch": 3}, {3: torch.ones(1)}])
def test_checkpoints_without_a_state_dict_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    assert "expected a state dict" in refusal(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path, bomb = tmp_path / "official.pth", tmp_path / "bomb.pth"
    torch.save(official(), path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name))
    assert "its archive is compressed" in refusal(bomb)


def test_archives_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    torch.save(official(), path)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24:directory + 28] = (2**30).to_bytes(4, "little")     # size of the first entry
    path.write_bytes(content)
    assert "would become larger than the file" in refusal(path)


def test_no_advice_to_switch_the_protection_off(tmp_path: Path) -> None:
    """PyTorch's own messages advise to load with weights_only=False."""
    path = tmp_path / "former.pth"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=4))
    plain = refusal(path)
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    tar = refusal(path)
    torch.save({"model": datetime.date(2020, 1, 1)}, path)
    date = refusal(path)
    torch.save({"model": datetime.date(2020, 1, 1)}, path, _use_new_zipfile_serialization=False)
    former_date = refusal(path)
    for message in (plain, tar, date, former_date):
        assert "weights_only" not in message
        assert ": refused, since" in message
