"""The images of a request's body, in memory, bounded in size and time."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from deformable_detr.server.limits import Limits
from deformable_detr.server.service import Upload
from deformable_detr.text import printable

FIELD = "image"
NAME_LETTERS = 200
UNNAMED = "image"


class Held:
    """Bytes of bodies in memory, of all requests together."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.total = limits, 0

    @contextmanager
    def body(self) -> Iterator["Body"]:
        """The share of one request, given back at the end."""
        body = Body(self)
        try:
            yield body
        finally:
            self.total -= body.size


class Body:
    """How much of a request's body has come."""

    def __init__(self, held: Held) -> None:
        self._held, self.size = held, 0

    def grow(self, number: int) -> None:
        limits = self._held.limits
        self.size += number
        self._held.total += number
        if self.size > limits.upload_bytes:
            raise too_large(limits)
        if self._held.total > limits.held_bytes:
            raise HTTPException(503, "too many uploads at a time; try again in a second", {"Retry-After": "1"})


async def read_uploads(request: Request, body: Body, limits: Limits) -> list[Upload]:
    """The images of a request: its whole body, or the parts named `image` of multipart/form-data."""
    _check_head(request, limits)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if not kind.startswith(b"multipart/"):
        content = b"".join([piece async for piece in pieces(request, body, limits)])
        if not content:
            raise HTTPException(400, "the body is empty; expected an image, or multipart/form-data with a field "
                                     f"{FIELD}")
        return [Upload(UNNAMED, content)]
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise HTTPException(415, "Content-Type: expected an image or multipart/form-data with a boundary, got "
                                 f"{printable(request.headers['content-type'][:100])}")
    return await _parts(request, body, limits, options[b"boundary"])


async def pieces(request: Request, body: Body, limits: Limits) -> AsyncIterator[bytes]:
    """The body as it comes; 408 for one that comes too slowly, 413 for one that is too long."""
    stream = request.stream()
    end = time.monotonic() + limits.transfer_seconds
    while True:
        patience = min(limits.idle_seconds, end - time.monotonic())
        try:
            piece = await asyncio.wait_for(anext(stream, None), patience)
        except TimeoutError:
            raise HTTPException(408, "the body came too slowly", {"Connection": "close"}) from None
        if piece is None:
            return
        body.grow(len(piece))
        yield piece


def too_large(limits: Limits) -> HTTPException:
    return HTTPException(413, f"expected at most {limits.upload_bytes:,} bytes")


def _check_head(request: Request, limits: Limits) -> None:
    """Refuse by what the head says, before the body is sent."""
    if int(request.headers.get("content-length", "0")) > limits.upload_bytes:   # digits: h11 has checked it
        raise too_large(limits)
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise HTTPException(415, f"Content-Encoding: expected none, got {printable(encoding[:100])}")


async def _parts(request: Request, body: Body, limits: Limits, boundary: bytes) -> list[Upload]:
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for piece in pieces(request, body, limits):
            parser.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise HTTPException(400, f"broken multipart/form-data: {printable(str(error)[:200])}") from None
    if not form.is_whole:
        raise HTTPException(400, "broken multipart/form-data: it ends before its last boundary")
    if not form.uploads:
        raise HTTPException(400, f"no image: expected a field {FIELD}")
    return form.uploads


class _Form:
    """What a parser of multipart/form-data reports, as uploads."""

    def __init__(self, limits: Limits) -> None:
        self.uploads: list[Upload] = []
        self.is_whole = False
        self._limits = limits
        self._header = (bytearray(), bytearray())
        self._name = UNNAMED
        self._is_described = False
        self._content = bytearray()

    def callbacks(self) -> Any:
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}

    def on_part_begin(self) -> None:
        if len(self.uploads) == self._limits.pictures:
            raise HTTPException(413, f"expected at most {self._limits.pictures} images")
        self._is_described, self._content = False, bytearray()

    def on_header_begin(self) -> None:
        self._header = (bytearray(), bytearray())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def on_header_end(self) -> None:
        if self._header[0].lower() != b"content-disposition":
            return
        _, options = parse_options_header(bytes(self._header[1]))
        field = options.get(b"name", b"").decode(errors="replace")
        if field != FIELD:
            raise HTTPException(400, f"expected fields {FIELD}, got {printable(field[:100])!r}")
        self._name, self._is_described = _shown_name(options.get(b"filename", b"")), True

    def on_headers_finished(self) -> None:
        if not self._is_described:
            raise HTTPException(400, "broken multipart/form-data: a part without Content-Disposition")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def on_part_end(self) -> None:
        self.uploads.append(Upload(self._name, bytes(self._content)))
        self._content = bytearray()

    def on_end(self) -> None:
        self.is_whole = True


def _shown_name(name: bytes) -> str:
    """The last part of a path, which some browsers send, in printable letters."""
    last = name.decode(errors="replace").replace("\\", "/").rpartition("/")[2]
    return printable(last[:NAME_LETTERS]) or UNNAMED
