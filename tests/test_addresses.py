"""Addresses: what they answer, and that no server can keep us waiting, fill the memory or lead us elsewhere."""

import io
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from deformable_detr import addresses
from deformable_detr.addresses import AddressError, copy, is_address, open_address
from helpers.web_server import Page, Server, running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Server({
        "/a": Page(b"content", "image/png"),
        "/%E7%8C%AB%20b?x=%20": Page(b"cat"),
        "/moved": Page(status=302, location="/a"),
        "/circle": Page(status=302, location="/circle"),
        "/file": Page(status=302, location="file:///etc/hostname"),
        "/ftp": Page(status=302, location="ftp://127.0.0.1/a"),
        "/endless": Page(b"x" * 300_000, says_length=False),
        "/silent": Page(silent=True),
        "/waits": Page(b"content", waits=True),
        "/broken": Page(status=500),
        **{f"/far{number}": Page(status=301, location=f"/far{number + 1}") for number in range(20)},
    })) as server:
        yield server


def test_what_is_there(server: Server) -> None:
    answer = open_address(f"{server.url}/a")
    with closing(answer.body) as body:
        assert (body.read(), answer.length, answer.kind) == (b"content", 7, "image/png")
    with closing(open_address(f"{server.url}/moved#part").body) as body:
        assert body.read() == b"content"
    with closing(open_address(f"{server.url}/猫 b?x= ").body) as body:
        assert body.read() == b"cat"
    answer = open_address(f"{server.url}/endless")
    with closing(answer.body):
        assert answer.length is None


@pytest.mark.parametrize(("path", "message"), [
    ("/absent", "the server answers 404 Not Found"),
    ("/broken", "the server answers 500 Internal Server Error"),
    ("/circle", "more than 5 redirects, or some in a circle"),
    ("/far0", "more than 5 redirects, or some in a circle"),
    ("/file", "file:///etc/hostname"),
    ("/ftp", "it redirects to ftp://127.0.0.1/a, expected an http(s) address"),
])
def test_what_is_not(server: Server, path: str, message: str) -> None:
    with pytest.raises(AddressError) as raised:
        open_address(f"{server.url}{path}")
    assert str(raised.value).startswith(f"{server.url}{path}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_redirects_end(server: Server) -> None:
    server.asked.clear()
    with pytest.raises(AddressError):
        open_address(f"{server.url}/far0")
    assert len(server.asked) == addresses.MAX_REDIRECTS + 1


@pytest.mark.parametrize("address", ["http://", "http:///a.jpg", "https://[", "http://host:port/", "http://host:0/",
                                     "http://a\nb/", "http://host/\x1b[31m"])
def test_no_addresses(address: str) -> None:
    with pytest.raises(AddressError, match=r"expected an address such as https://host/photo\.jpg") as raised:
        open_address(address)
    assert str(raised.value).isprintable()


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(AddressError, match="addresses with a user's name are not supported") as raised:
        open_address("https://me:secret@host/a.jpg")
    assert "secret" not in str(raised.value)


def test_nobody_there() -> None:
    with pytest.raises(AddressError, match=r"http://127\.0\.0\.1:1/a: Connection refused"):
        open_address("http://127.0.0.1:1/a")


def test_a_server_that_says_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 0.1)
    with pytest.raises(AddressError, match=r"/silent: no answer within 0\.1 seconds"):
        open_address(f"{server.url}/silent")


def test_a_body_that_does_not_come(server: Server) -> None:
    body = open_address(f"{server.url}/waits").body
    with pytest.raises(TimeoutError, match=r"not complete after 0\.1 seconds"):
        copy(body, io.BytesIO(), 1000, 0.1)


def test_a_body_that_does_not_end(server: Server) -> None:
    target = io.BytesIO()
    with closing(open_address(f"{server.url}/endless").body) as body, \
            pytest.raises(ValueError, match="too large: expected at most 0 MB"):
        copy(body, target, 100_000, 10)
    assert len(target.getvalue()) <= 100_000


@pytest.mark.parametrize("max_seconds", [None, 10])
def test_a_whole_body(server: Server, max_seconds: float | None) -> None:
    target = io.BytesIO()
    with closing(open_address(f"{server.url}/endless").body) as body:
        assert copy(body, target, 300_000, max_seconds) == 300_000
    assert target.getvalue() == b"x" * 300_000


def test_threads_end(server: Server) -> None:
    with closing(open_address(f"{server.url}/a").body) as body:
        copy(body, io.BytesIO(), 100, 10)
    server.ended.set()      # for which those of the tests above wait
    for thread in threading.enumerate():
        if thread.name == addresses.THREAD_NAME:
            thread.join(5)
            assert not thread.is_alive()
    assert is_address("HTTPS://host")
    assert not any(map(is_address, ("https:/host", "ftp://host", "http", "a/http://b")))
