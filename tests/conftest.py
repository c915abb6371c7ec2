"""Every shape written in a signature is checked while the tests run, and no test's log goes on into the next."""

import logging
from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

install_import_hook("deformable_detr", "typechecker.checked")


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """A command that was run here has left a handler, whose stream ends with the test."""
    yield
    logging.getLogger("deformable_detr").handlers.clear()
