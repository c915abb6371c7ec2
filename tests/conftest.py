"""Every shape written in a signature is checked while the tests run, and no test's log goes on into the next."""

import logging
import os
from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

from helpers import typechecker  # noqa: F401  (jaxtyping asks for it by name)
from helpers.exported_files import exported_files  # noqa: F401  (a fixture)
from helpers.written_data import write_data  # noqa: F401  (a fixture)

# Two processes of tests have the threads of both: those that wait must not keep the others from working.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

install_import_hook("deformable_detr", "helpers.typechecker.checked")

# Files that take longest. One that is begun last keeps its worker busy while the others have nothing left to do.
LONGEST = ("test_processes.py", "test_parity.py", "test_interrupted.py", "test_family_parity.py", "test_notebooks.py",
           "test_overfit.py", "test_gpu_code.py", "test_numba.py", "test_gpu.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several workers begin with the longest files; a single process keeps to the order of the folders."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """A command that was run here has left a handler, whose stream ends with the test."""
    yield
    logging.getLogger("deformable_detr").handlers.clear()
