"""A server in a thread of the test, and clients that send whatever they like."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from deformable_detr import Detector
from deformable_detr.server.application import Application
from deformable_detr.server.guard import Doors
from deformable_detr.server.limits import Limits
from deformable_detr.server.running import Server, address_of, listen

BOUNDARY = "boundary-of-the-test"
PATIENCE = 60       # seconds


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> str:
        return self.json()["error"]


@dataclass
class Serving:
    """A server that listens at 127.0.0.1."""

    address: str
    port: int
    application: Application
    server: Server
    headers: dict[str, str] = field(default_factory=dict)     # of every request

    def ask(self, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Answer:
        """One request on a connection of its own; a header's `_` stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
            response = connection.getresponse()
            content = response.read()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
        finally:
            connection.close()

    def send_form(self, path: str, *parts: tuple[str, str, bytes], **headers: str) -> Answer:
        """Parts (field, file name, content) as multipart/form-data."""
        return self.ask(path, form(*parts), Content_Type=f"multipart/form-data; boundary={BOUNDARY}", **headers)

    def connect(self, timeout: float = PATIENCE) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)


def form(*parts: tuple[str, str, bytes]) -> bytes:
    """The body of multipart/form-data."""
    whole = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
             f"Content-Type: application/octet-stream\r\n\r\n".encode() + content + b"\r\n"
             for name, file, content in parts]
    return b"".join([*whole, f"--{BOUNDARY}--\r\n".encode()])


@contextmanager
def serving(detector: Detector, limits: Limits | None = None, **options: Any) -> Iterator[Serving]:
    """A server, warm, whose thread has ended afterwards; options are those of `Doors`, and an `evaluator`."""
    limits = limits or Limits()
    evaluator = options.pop("evaluator", None)
    application = Application(detector, limits, Doors(**options), evaluator)
    listener = listen("127.0.0.1", 0)
    address, port = address_of(listener), listener.getsockname()[1]
    server = Server(application.app, limits, application.begin_end)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server of a test")
    thread.start()
    try:
        wait_for(lambda: application.service.is_ready)
        yield Serving(address, port, application, server)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive(), "the server did not stop"


def wait_for(condition: Any) -> None:
    """Until it is true; fails after a minute."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
