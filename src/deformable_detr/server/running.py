"""The server as a process: its address, its signals, and a stop that finishes what was begun."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from deformable_detr.server.connection import server_config
from deformable_detr.server.limits import Limits

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BACKLOG = 512


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: clients can already connect. Raises OSError if the address cannot be used."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def address_of(listener: socket.socket) -> str:
    """As it is typed into a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """uvicorn's server, which at its end loses no request of a client whose connection was accepted.

    `on_end` is called when the end begins.
    """

    def __init__(self, app: object, limits: Limits, on_end: Callable[[], None]) -> None:
        super().__init__(server_config(app, limits))
        self._on_end = on_end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_end()
        # uvicorn closes the sockets at once. What the system has accepted meanwhile would be lost.
        accepted = [connection for listener in sockets or [] for connection in _rest_of(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in accepted:
            with suppress(OSError):
                await loop.connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        protocol = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)   # pyright: ignore[reportCallIssue]

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at the first signal. uvicorn would raise it again afterwards, which ends the process as if by force."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def _rest_of(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait to be taken, with nothing between the last one and the caller's next step."""
    listener.setblocking(False)
    with suppress(BlockingIOError, ConnectionError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection
