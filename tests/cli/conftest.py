"""What tests of commands share: weights that are quick to run, and a working folder."""

from pathlib import Path

import pytest

from helpers.models import save_tiny


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a call."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
