"""A small HTTP server on this machine, with the faults that servers have."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from helpers.http_server import answering


@dataclass
class Page:
    """What a path answers."""

    content: bytes = b""
    kind: str = "application/octet-stream"
    status: int = 200
    location: str | None = None
    says_length: bool = True
    claimed_length: int | None = None
    waits: bool = False         # sends headers, then nothing before the server ends
    silent: bool = False        # not even headers


@dataclass
class Server:
    """Pages by path, and what was asked for."""

    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@contextmanager
def running(server: Server) -> Iterator[Server]:
    with answering(_handler(server)) as server.url:
        try:
            yield server
        finally:
            server.ended.set()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            page = server.pages.get(self.path, Page(status=404))
            if page.silent:
                server.ended.wait()
                return
            self.send_response(page.status)
            self.send_header("Content-Type", page.kind)
            if page.location is not None:
                self.send_header("Location", page.location)
            if page.says_length:
                self.send_header("Content-Length", str(page.claimed_length or len(page.content)))
            self.end_headers()
            if page.waits:
                server.ended.wait()
                return
            self.wfile.write(page.content)

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    return Handler
