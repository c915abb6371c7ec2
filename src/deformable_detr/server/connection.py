"""uvicorn's connection, with an end for clients that are slow on purpose.

uvicorn itself waits without end for the head of a request, and for a client that does not read its answer.
"""

import asyncio

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from deformable_detr.server.limits import Limits

FULL = (b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
LAST_CALL = 1.0     # seconds for the first request of a connection that came as the server stops


class Connection(H11Protocol):
    """A connection that is closed when nothing is asked for, or when what is asked for is not read."""

    limits = Limits()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self._head_timer: asyncio.TimerHandle | None = None
        self._reading_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections:
            transport.write(FULL)
            self._close()
        else:
            self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        super().connection_lost(exc)
        self.resume_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading_timer is None:
            self._reading_timer = self.loop.call_later(self.limits.transfer_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._after()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._after()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._after()

    def shutdown(self) -> None:
        """As the server stops. The request of a fresh connection may be on its way: it is awaited a little."""
        if self.cycle is None and not self.transport.is_closing():
            self._cancel_head_timer()
            self._head_timer = self.loop.call_later(LAST_CALL, self._close)
        else:
            super().shutdown()
            self._after()

    def _after(self) -> None:
        """Set the timer that the connection's state asks for."""
        if self.transport.is_closing():
            self._close()
        else:
            self._watch_head()

    def _watch_head(self) -> None:
        """While a request is worked on, others limit its time; else a whole head must come, or the rest of a body
        that was answered before its end."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.idle_seconds, self._close)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close(self) -> None:
        """Close once what was written is sent, or when it is not read in time."""
        self._cancel_head_timer()
        self.transport.close()
        self.loop.call_later(self.limits.transfer_seconds, self.transport.abort)


def connection_class(limits: Limits) -> type[Connection]:
    """The class with these limits: uvicorn makes the connections."""
    return type("LimitedConnection", (Connection,), {"limits": limits})


def server_config(app: object, limits: Limits) -> uvicorn.Config:
    """uvicorn with our connections, no WebSockets, and no trust in headers of proxies."""
    return uvicorn.Config(
        app, http=connection_class(limits), ws="none", loop="asyncio", lifespan="on", log_config=None,  # pyright: ignore[reportArgumentType]
        log_level="error", access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=5,
        timeout_graceful_shutdown=int(limits.seconds + limits.idle_seconds) + 1,
        h11_max_incomplete_event_size=limits.head_bytes)
