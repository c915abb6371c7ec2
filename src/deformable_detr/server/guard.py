"""What every request passes: the token, headers that browsers obey, counts, and an answer whatever went wrong."""

import hashlib
import hmac
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deformable_detr.server.metrics import Metrics

logger = logging.getLogger(__name__)

# Scripts and styles are files of the server's; images are the person's own, drawn by the page.
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
          "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
SAFE = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Doors:
    """Who may ask.

    Attributes:
        token: What clients must send, if anything.
        origins: Of pages elsewhere whose scripts may ask.
        hosts: Names by which the server may be called, by default any. A server for this machine alone must not answer
            to a name of a stranger's, whose page would reach it through the name (DNS rebinding).
    """

    token: str | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None


class Guard:
    """The outermost part of the application.

    With a token, only the `open_paths`, and what is below those that end with "/", are for everybody.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, doors: Doors, open_paths: Collection[str],
                 known_paths: Collection[str]) -> None:
        self.app, self.metrics, self._doors = app, metrics, doors
        self._token = None if doors.token is None else _digest(doors.token.encode())
        self._open, self._known = open_paths, known_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._answer(scope, receive, send_safely)
        except ClientDisconnect:
            status = status or 499      # as nginx counts a client that has gone
        except Exception:
            logger.exception("a request failed")
            if not status:
                await JSONResponse({"error": "the server failed; its log says why"}, 500)(scope, receive, send_safely)
        finally:
            path = scope["path"] if scope["path"] in self._known else "other"
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.request_seconds.labels(path).observe(time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if self._doors.hosts is not None and _host_name(headers.get("host", "")) not in self._doors.hosts:
            return JSONResponse({"error": "this server is not called by that name; --allow-host names another"}, 421)
        # A form of a page elsewhere needs no permission to be sent here.
        is_foreign = headers.get("sec-fetch-site") == "cross-site" and scope["method"] == "POST"
        if is_foreign and headers.get("origin") not in self._doors.origins:
            return JSONResponse({"error": "pages of other origins may not ask; --allow-origin names one that may"}, 403)
        if not self._has_token(scope):
            return JSONResponse({"error": "expected the header Authorization: Bearer TOKEN with the server's token"},
                                401, {"WWW-Authenticate": "Bearer"})
        return None

    def _has_token(self, scope: Scope) -> bool:
        if self._token is None or self._is_open(scope["path"]):
            return True
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        # Digests have one length: the time says nothing about the token's.
        return hmac.compare_digest(self._token, _digest(token.strip().encode())) and scheme.lower() == "bearer"

    def _is_open(self, path: str) -> bool:
        return any(path == each or (each.endswith("/") and len(each) > 1 and path.startswith(each))
                   for each in self._open)


def _host_name(host: str) -> str:
    """Without the port."""
    return host.lower().partition("]")[0].removeprefix("[") if host.startswith("[") else host.lower().partition(":")[0]


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
