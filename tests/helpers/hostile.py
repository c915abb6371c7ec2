"""Requests of clients that mean harm, or know no better: each is bytes for a socket, with pauses between."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from helpers.planted import huge_png
from helpers.serving import BOUNDARY, form

MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
NAMES = ("../../etc/passwd", "..\\..\\windows\\win.ini", "/etc/shadow", "file:///etc/passwd", "http://example.org/a.png",
         "a\x00.png", "con", "%2e%2e%2f", "~root", "a" * 3000, "\u202egnp.exe", "$(reboot).png", "';--", "|id")
TARGETS = ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/..%2f..%2flimits.py", "//etc/passwd", "/page/%00",
           "/explanations/../healthz", "/explanations/%2e%2e", "http://example.org/", "*", "/detect?url=http://[::1]/",
           "/detect?threshold=1e999", "/detect?threshold=%00", "/detect?top_k=" + "9" * 3000, "/detect?" + "&" * 3000,
           "/\\..\\..", "/%ff%fe", "/;/", "/detect%2f", "/detect/../metrics")


@dataclass(frozen=True)
class Attack:
    """What is sent, piece by piece."""

    name: str
    pieces: Sequence[bytes]
    pause: float = 0                # seconds after each piece
    answers: int = 1                # that are awaited, fewer if the connection is closed
    leaves: bool = False            # without waiting for an answer
    reads: bool = True              # what comes back


def attacks(images: Sequence[bytes]) -> Iterator[Attack]:
    """All of them; always the same."""
    random = np.random.default_rng(0)
    yield from _images(images, random)
    yield from _bombs()
    yield from _wrong_types()
    yield from _forms(images[0], random)
    yield from _names(images[0])
    yield from _heads()
    yield from _framing(images[0], random)
    yield from _slow(images[0])
    yield from _pipelined(images[0])


def post(body: bytes, kind: str = "image/png", target: str = "/detect", **headers: str) -> bytes:
    head = {"Host": "x", "Content-Type": kind, "Content-Length": str(len(body))}
    head |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body


def _images(images: Sequence[bytes], random: np.random.Generator) -> Iterator[Attack]:
    for image in images:
        for _ in range(20):
            yield Attack("truncated", [post(image[:int(random.integers(1, len(image)))])])
            damaged = np.frombuffer(image, np.uint8).copy()
            damaged[random.integers(0, len(damaged), 8)] = random.integers(0, 256, 8)
            yield Attack("damaged", [post(damaged.tobytes())])


def _bombs() -> Iterator[Attack]:
    def png(width: int, height: int, content: bytes, *further: tuple[bytes, bytes]) -> bytes:
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *further, (b"IDAT", content),
                  (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks)

    zeros = zlib.compress(bytes(50 * 2**20))
    text = (b"zTXt", b"a\x00\x00" + zeros)
    profile = (b"iCCP", b"a\x00\x00" + zeros)
    bombs = [huge_png(), png(8, 8, zeros), png(1000, 1000, zeros), png(2**31 - 1, 2**31 - 1, b""), png(0, 0, b""),
             png(8, 8, zlib.compress(bytes(200)), text), png(8, 8, zlib.compress(bytes(200)), profile),
             b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(50),
             b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
             b"P6 100000 100000 255\n" + bytes(100), b"P6 " + b"9" * 5000 + b" 1 255\n", b"P5 99999 1 65535\n\x00",
             b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 65535) + bytes(200),
             b"RIFF\xff\xff\xff\xffWEBPVP8X" + bytes(30),
             b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + bytes(60)]
    for bomb in bombs:
        yield Attack("bomb", [post(bomb)])
        yield Attack("bomb in a form", [post(form(("image", "a.png", bomb)), MULTIPART)])
    yield Attack("too long", [post(bytes(10**6))])
    yield Attack("said to be too long", [post(b"", Content_Length=str(10**12))])
    yield Attack("compressed", [post(zeros, Content_Encoding="deflate")])


def _wrong_types() -> Iterator[Attack]:
    contents = [b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", b"%PDF-1.7\n",
                b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file", b"{}", b"null", b"PK\x03\x04" + bytes(40),
                b"<html><script>alert(1)</script>", b"http://example.org/a.png", b"/etc/passwd", b"\x00", b"\x80" * 999,
                b"#!/bin/sh\nreboot\n", b"\x1f\x8b\x08\x00", b"RIFF", b"\x7fELF",
                b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(30),
                b"\x00\x00\x00\x20ftypavif" + bytes(40), b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os"]
    for content in contents:
        for kind in ("image/jpeg", "application/json"):
            yield Attack("wrong type", [post(content, kind)])
    yield Attack("no body", [post(b"")])
    yield Attack("another type wanted", [post(b"x", Accept="text/html;q=x,,;")])
    for kind in ("", ";", "multipart/", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 300,
                 "multipart/form-data; boundary=\"", "a/b" * 900, "\xff\xfe"):
        yield Attack("odd type", [post(b"x", kind)])


def _forms(image: bytes, random: np.random.Generator) -> Iterator[Attack]:
    whole = form(("image", "a.png", image))
    head = f"--{BOUNDARY}\r\n".encode()
    disposition = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n'
    bodies = [head, head + b"\r\n", head + disposition, head + disposition + b"\r\n", b"\r\n" * 500, b"--" * 500,
              head + b"X: " + b"y" * 6000 + b"\r\n\r\nz", head + b"X: y\r\n" * 200 + b"\r\nz",
              head + b"no colon\r\n\r\nz",
              head + b"Content-Disposition: form-data\r\n\r\nz" + whole, head + b"\r\nz\r\n" + whole,
              head + b"\x00: y\r\n\r\nz", head.replace(b"\r\n", b"\n") + b"z", head * 300,
              form(*[("image", "a", b"")] * 99),
              form(("file", "a.png", image)), form(("", "", b"")), form(("image\x00", "a", b"")), whole[:-4],
              whole[2:], whole + whole, whole.replace(b"form-data;", b"form-data" + b";" * 3000)]
    for body in bodies:
        yield Attack("broken form", [post(body, MULTIPART)])
    for _ in range(20):
        yield Attack("truncated form", [post(whole[:int(random.integers(1, len(whole)))], MULTIPART)])


def _names(image: bytes) -> Iterator[Attack]:
    for name in NAMES:
        yield Attack("name of a file", [post(form(("image", name, image)), MULTIPART)])
    for target in TARGETS:
        for method in ("GET", "DELETE"):
            yield Attack("path", [f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()])


def _heads() -> Iterator[Attack]:
    lines = [b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 99_000 + b"\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"GET /" + b"a" * 99_000,
             b"G" * 99_000 + b" / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
             b"GET /\r\n\r\n", b"\r\n" * 3000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
             b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00" * 999, b"GET / HTTP/1.1\nHost: x\n\n",
             b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", b"GET / HTTP/1.1\r\nHost: \x00\r\n\r\n",
             b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n", b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: a\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
             b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: " + b"\xff" * 99 + b"\r\n\r\n"]
    for line in lines:
        yield Attack("head", [line])


def _framing(image: bytes, random: np.random.Generator) -> Iterator[Attack]:
    start = b"POST /detect HTTP/1.1\r\nHost: x\r\n"
    for length in (b"-1", b"1e3", b"0x10", b"", b"9" * 40, b"1, 2", b"+5", b"\xb2"):
        yield Attack("length", [start + b"Content-Length: " + length + b"\r\n\r\nabcde"])
    yield Attack("two lengths", [start + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"])
    yield Attack("length and chunks", [
        start + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"])
    chunked = start + b"Transfer-Encoding: chunked\r\n\r\n"
    for chunk in (b"zz\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"5\r\nabc", b"5;" + b"x" * 9000, b"\r\n",
                  b"1\r\nab\r\n", b"0\r\nX: " + b"y" * 30_000):
        yield Attack("chunk", [chunked + chunk])
    yield Attack("endless chunks", [chunked, *[b"fff0\r\n" + bytes(0xfff0) + b"\r\n"] * 30])
    yield Attack("gzip, chunked", [start + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"])
    yield Attack("expects to be asked", [post(b"", Content_Length="99", Expect="100-continue")])
    for _ in range(10):
        yield Attack("leaves", [post(image)[:int(random.integers(1, 300))]], leaves=True)


def _slow(image: bytes) -> Iterator[Attack]:
    request = post(image)
    yield Attack("says nothing", [b""])
    for index in range(5):
        yield Attack("stops in its head", [request[:10 + 10 * index]])
        yield Attack("stops in its body", [request[:200 + index]])
        yield Attack("byte by byte", [bytes([letter]) for letter in request[:60]], pause=0.1)
        yield Attack("body byte by byte", [request[:-99], *[b"x"] * 60], pause=0.1)
        yield Attack("answered, and goes on", [post(b"", Content_Length=str(10**9)), *[b"x"] * 60], pause=0.1,
                     answers=9)
        yield Attack("asks and does not read", [b"GET /page/page.css HTTP/1.1\r\nHost: x\r\n\r\n" * 2000],
                     answers=10**6, reads=False)


def _pipelined(image: bytes) -> Iterator[Attack]:
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for count in (2, 5, 30):
        yield Attack("pipelined", [health * count], answers=count)
        yield Attack("pipelined images", [post(image) * count], answers=count)
        yield Attack("pipelined, then garbage", [health * count + b"\x00\xff garbage \r\n\r\n"], answers=count + 1)
        yield Attack("pipelined, then leaves", [post(image) * count], leaves=True)
