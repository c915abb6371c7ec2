"""The description of the interface, held to what the server does by requests that are made from it."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from deformable_detr import Detector
from deformable_detr.server.limits import Limits
from helpers.serving import Serving, serving

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")
PATHS = ["/detect", "/explain", "/healthz", "/readyz", "/metrics"]


@pytest.fixture(scope="module")
def server(detector: Detector) -> Iterator[Serving]:
    with serving(detector, Limits(pixels=10**6, upload_bytes=10**6)) as server:
        yield server


# The server is in a thread of this process, where beartype draws random numbers as it checks lists.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_one_that_is_described(server: Serving, path: str) -> None:
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    operation = next(each.ok() for each in schema.get_all_operations() if each.ok().path == path)

    @settings(max_examples=25, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def check(case: "schemathesis.Case") -> None:
        case.call_and_validate(excluded_checks=[checks.positive_data_acceptance])   # no schema describes an image

    check()


def test_all_paths_are_described(server: Serving) -> None:
    assert sorted(server.ask("/openapi.json").json()["paths"]) == sorted(PATHS)
