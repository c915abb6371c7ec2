"""A folder of exported files, for all tests and all processes of tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

PROGRAM = Path(__file__).parent / "export_files.py"


@pytest.fixture(scope="session")
def exported_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `export_files.py` writes, once for all processes."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / "exported", base / "exported.done"
    with FileLock(base / "exported.lock"):
        if not done.exists():
            folder.mkdir(exist_ok=True)
            ended = subprocess.run([sys.executable, str(PROGRAM), str(folder)], capture_output=True, text=True,
                                   check=False)
            assert ended.returncode == 0, ended.stderr
            done.touch()
    return folder
