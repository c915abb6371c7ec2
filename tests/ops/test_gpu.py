"""The numbers of the Triton kernels, without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("gpu_interpreted.py")


def test_kernels_compute_what_the_definition_says():
    """In a process of its own: TRITON_INTERPRET counts when Triton is imported, and other tests compile."""
    pytest.importorskip("triton", reason="Triton comes with PyTorch's builds for GPUs on Linux")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout
