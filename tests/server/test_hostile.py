"""Three hundred requests that mean harm: each is answered or closed in bounded time, and the server stays right."""

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from deformable_detr import Detector
from deformable_detr.server.limits import Limits
from helpers.hostile import Attack, attacks
from helpers.serving import Serving, serving, wait_for

LIMITS = Limits(upload_bytes=200_000, pixels=10**6, pictures=3, queue=64, seconds=20, transfer_seconds=2,
                idle_seconds=0.5, head_bytes=8192, held_bytes=10**7)
EXPECTED = {
    "truncated form": {"400"}, "wrong type": {"422"}, "length": {"400"}, "length and chunks": {"400"},
    "compressed": {"415"}, "too long": {"413"}, "said to be too long": {"413"}, "endless chunks": {"413"},
    "name of a file": {"200"}, "path": {"404", "405"}, "says nothing": {"closed"}, "stops in its head": {"closed"},
    "stops in its body": {"408"}, "asks and does not read": {"closed"}, "pipelined images": {"200"},
    "pipelined, then garbage": {"200", "400"}}
PATIENCE = 20       # seconds until an attack must have its answer, on a busy machine


@pytest.fixture(scope="module")
def server(detector: Detector) -> Iterator[Serving]:
    with serving(detector, LIMITS) as server:
        yield server


def test_hostile_requests(server: Serving, detector: Detector, images: list[bytes]) -> None:
    all_attacks = list(attacks(images))
    assert len(all_attacks) >= 300
    with ThreadPoolExecutor(32) as clients:
        outcomes = list(clients.map(lambda attack: outcome(server, attack), all_attacks))
    for attack, ends in zip(all_attacks, outcomes, strict=True):
        assert "late" not in ends, attack
        assert "500" not in ends, attack
    by_name: dict[str, set[str]] = {}
    for attack, ends in zip(all_attacks, outcomes, strict=True):
        by_name.setdefault(attack.name, set()).update(ends)
    assert {name: by_name[name] for name in EXPECTED} == EXPECTED
    service = server.application.service
    wait_for(lambda: service.waiting == 0 and server.application.held.total == 0)
    wait_for(lambda: not server.server.server_state.connections)
    assert server.ask("/healthz").status == 200
    assert server.ask("/readyz").status == 200
    wanted = detector(images[0], 0).to_dict(detector.info.category_ids)
    assert server.ask("/detect?threshold=0", images[0]).json() == {"file": "image", **wanted}


def outcome(server: Serving, attack: Attack) -> list[str]:
    """The statuses of the answers, and how the connection ended."""
    end = time.monotonic() + PATIENCE
    with server.connect(PATIENCE) as client:
        try:
            for piece in attack.pieces:
                client.sendall(piece)
                if attack.pause:
                    time.sleep(attack.pause)
            if attack.leaves:
                return ["left"]
            if not attack.reads:
                wait_until_closed(client, end)
            return statuses(client, attack.answers, end)
        except TimeoutError:
            return ["late"]
        except ConnectionError:     # closed before all was sent: what was answered before may be lost
            return ["closed"]


def statuses(client: socket.socket, count: int, end: float) -> list[str]:
    """The statuses of up to so many answers."""
    content = b""
    while len(found := re.findall(rb"HTTP/1\.1 (\d\d\d) ", content)) < count or b"\r\n\r\n" not in content:
        client.settimeout(max(end - time.monotonic(), 0.01))
        piece = client.recv(2**16)
        if not piece:
            return [*(status.decode() for status in found), "closed"]
        content += piece
    return [status.decode() for status in found]


def wait_until_closed(client: socket.socket, end: float) -> None:
    """Send on until the server has given up on a client that does not read: that raises ConnectionError."""
    while time.monotonic() < end:
        client.settimeout(max(end - time.monotonic(), 0.01))
        client.sendall(b"x")
        time.sleep(0.1)
    raise TimeoutError
