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


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """A command that was run here has left a handler, whose stream ends with the test."""
    yield
    logging.getLogger("deformable_detr").handlers.clear()
