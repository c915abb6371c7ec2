"""What an http(s) address answers, within bounds: of time, of redirects, and where it is copied, of bytes.

A server may be slow or hostile: names, connections and headers are waited for in a thread that is given up when the
time is over, because nothing in Python interrupts them.
"""

import http.client
import io
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from deformable_detr.text import printable

SCHEMES = ("http", "https")
ANSWER_SECONDS = 20.0       # from the call to the end of the headers, redirects included
IDLE_SECONDS = 20.0         # without a byte
MAX_REDIRECTS = 5
THREAD_NAME = "deformable-detr-address"
PIECE = 2**16               # bytes
UNQUOTED = "%/:=&?~#+!$,;'@()*[]"       # of paths and queries: what is quoted already stays

Result = TypeVar("Result")


class AddressError(ValueError):
    """An address that does not give what was asked for; one line, which begins with it."""


class Answer(NamedTuple):
    """What an address has answered: its body is still to be read."""

    body: io.BufferedIOBase
    length: int | None      # bytes; None if the server does not say, as for a camera
    kind: str               # "image/jpeg", as the server says


def is_address(source: str) -> bool:
    """Whether it is an http(s) address."""
    return source.partition("://")[0].lower() in SCHEMES and "://" in source


def open_address(address: str) -> Answer:
    """What the address answers. Raises AddressError within about ANSWER_SECONDS."""
    request = _request(address)
    try:
        return within(ANSWER_SECONDS, partial(_ask, request))
    except TimeoutError:
        reason = f"no answer within {ANSWER_SECONDS:g} seconds"
    except urllib.error.HTTPError as error:
        error.close()
        reason = (f"more than {MAX_REDIRECTS} redirects, or some in a circle" if "infinite loop" in str(error.reason)
                  else f"the server answers {error.code} {error.reason}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = _reason_of(error)
    raise AddressError(printable(f"{address}: {' '.join(reason.split())}"))


def copy(source: io.BufferedIOBase, target: io.BufferedIOBase, max_bytes: int, max_seconds: float | None = None) -> int:
    """Copy the rest of a stream, and return how many bytes that were.

    Raises ValueError for more than `max_bytes`, TimeoutError if it takes longer than `max_seconds`: then the stream
    is still waited for in a thread, which closes it.
    """
    stopped = threading.Event()

    def run() -> int:
        copied = 0
        while not stopped.is_set() and (piece := _next_piece(source)):
            copied += len(piece)
            if copied > max_bytes:
                raise ValueError(f"too large: expected at most {max_bytes // 2**20} MB")
            target.write(piece)
        if stopped.is_set():
            source.close()
        return copied

    try:
        return run() if max_seconds is None else within(max_seconds, run)
    except TimeoutError:
        stopped.set()
        raise TimeoutError(f"not complete after {max_seconds:g} seconds") from None


def _next_piece(source: io.BufferedIOBase) -> bytes:
    try:
        return source.read(PIECE)
    except TimeoutError as error:
        raise ConnectionError(f"nothing came for {IDLE_SECONDS:g} seconds") from error


def _request(address: str) -> urllib.request.Request:
    from deformable_detr import __version__

    try:
        parts = urlsplit(address)
        if not parts.hostname or parts.port == 0 or not address.isprintable():
            raise ValueError
    except ValueError:      # also for "http://[" and "http://host:port"
        raise AddressError(f"{printable(address)}: expected an address such as https://host/photo.jpg") from None
    if parts.username is not None:
        raise AddressError(f"{parts.scheme}://...@{parts.hostname}: addresses with a user's name are not supported")
    path, query = (quote(part, safe=UNQUOTED) for part in (parts.path, parts.query))
    encoded = parts._replace(path=path, query=query, fragment="").geturl()
    return urllib.request.Request(encoded, headers={"User-Agent": f"deformable-detr/{__version__}"})


def _ask(request: urllib.request.Request) -> Answer:
    response: Any = urllib.request.build_opener(_Redirects()).open(request, timeout=IDLE_SECONDS)
    length = response.headers.get("Content-Length", "")
    return Answer(response, int(length) if length.isascii() and length.isdigit() else None,
                  response.headers.get_content_type())


def _reason_of(error: Exception) -> str:
    """In words: URLError wraps what happened, and errors of sockets have numbers."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Few, and to http(s) only."""

    max_redirections = MAX_REDIRECTS
    max_repeats = MAX_REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not is_address(newurl):
            fp.close()
            raise urllib.error.URLError(f"it redirects to {newurl}, expected an http(s) address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """What `work` returns or raises; TimeoutError if that takes longer: then it goes on, and nobody waits for it."""
    outcomes: SimpleQueue[Callable[[], Result]] = SimpleQueue()

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            outcomes.put(partial(_raise, error))
        else:
            outcomes.put(lambda: result)

    threading.Thread(target=run, name=THREAD_NAME, daemon=True).start()
    try:
        outcome = outcomes.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    return outcome()


def _raise(error: Exception) -> Any:
    raise error
