"""What programs ask for, and what they get."""

import io
import json
import threading
from typing import Any

import numpy as np
import PIL.Image
import pytest

from deformable_detr import Detector
from deformable_detr.server.limits import Limits
from helpers.serving import Serving, serving, wait_for


def expected(detector: Detector, content: bytes, threshold: float = 0, top_k: int = 100) -> dict[str, Any]:
    found = detector(content, threshold, top_k).to_dict(detector.info.category_ids)
    return json.loads(json.dumps(found))


def test_an_image_as_the_body(server: Serving, detector: Detector, images: list[bytes]) -> None:
    for content in images:
        answer = server.ask("/detect?threshold=0", content)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {"file": "image", **expected(detector, content)}
    assert len(answer.json()["detections"]) == 60
    assert server.ask("/detect", images[0]).json()["detections"] == []      # the weights' own threshold


def test_top_k_and_threshold(server: Serving, detector: Detector, images: list[bytes]) -> None:
    scores = [each["score"] for each in expected(detector, images[0])["detections"]]
    answer = server.ask(f"/detect?threshold={scores[20] + 1e-4}&top_k=7", images[0])
    assert [each["score"] for each in answer.json()["detections"]] == scores[:7]


def test_a_form_with_one_and_with_several(server: Serving, detector: Detector, images: list[bytes]) -> None:
    one = server.send_form("/detect?threshold=0", ("image", "C:\\photos\\a.png", images[0]))
    assert one.json() == {"file": "a.png", **expected(detector, images[0])}
    several = server.send_form("/detect?threshold=0", ("image", "猫.png", images[0]),
                               ("image", "../b\x1b.jpg", b"text"), ("image", "", images[2]))
    assert several.status == 200
    first, second, third = several.json()
    assert first == {"file": "猫.png", **expected(detector, images[0])}
    assert second == {"file": "b\\x1b.jpg", "error": "not an image, or its format is not supported"}
    assert third == {"file": "image", **expected(detector, images[2])}


@pytest.mark.parametrize(("accept", "kind"), [
    ("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/*", "JPEG"), ("application/json;q=0.1, image/png", "PNG")])
def test_an_annotated_image(server: Serving, detector: Detector, images: list[bytes], accept: str, kind: str) -> None:
    answer = server.ask("/detect?threshold=0&top_k=2", images[2], Accept=accept)
    drawn = PIL.Image.open(io.BytesIO(answer.content))
    assert (answer.status, drawn.format, drawn.size) == (200, kind, (40, 64))
    if kind == "PNG":
        expected = detector(images[2], 0, 2).draw(images[2])
        assert np.array_equal(np.asarray(drawn), np.asarray(expected))


def test_the_pages_headers_let_nothing_else_in(server: Serving) -> None:
    for path in ("/", "/healthz", "/nowhere"):
        headers = server.ask(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in server.ask(path, Origin="https://example.org").headers
        assert "server" not in headers


def test_an_explanation_for_a_frame(server: Serving, images: list[bytes], detector: Detector) -> None:
    answer = server.send_form("/explain?threshold=0&top_k=3", ("image", "<b>.png", images[0]))
    assert answer.json()["queries"] == detector.explain(images[0], 0, 3).queries.tolist()
    page = server.ask(answer.json()["page"])
    assert page.status == 200
    assert "sandbox allow-scripts" in page.headers["content-security-policy"]
    assert b"&lt;b&gt;.png" in page.content
    assert b"<b>" not in page.content
    assert server.ask("/explanations/guessed").status == 404
    assert server.ask("/explain", b"text").status == 422


@pytest.mark.parametrize(("path", "body", "headers", "status", "message"), [
    ("/detect", b"", {}, 400, "the body is empty"),
    ("/detect", b"text", {}, 422, "not an image"),
    ("/detect?threshold=nan", b"x", {}, 400, "threshold: expected a number from 0 to 1, got 'nan'"),
    ("/detect?threshold=", b"x", {}, 400, "threshold: expected"),
    ("/detect?top_k=1.5", b"x", {}, 400, "top_k: expected a whole number from 1 to 300, got '1.5'"),
    ("/detect?top_k=301", b"x", {}, 400, "top_k"),
    ("/detect?url=http://example.org/a.png", b"x", {}, 400, "expected the parameters threshold and top_k, got 'url'"),
    ("/detect", b"x", {"Accept": "text/html"}, 406, "Accept: expected application/json"),
    ("/detect", b"x", {"Content-Encoding": "gzip"}, 415, "Content-Encoding: expected none, got gzip"),
    ("/detect", b"x", {"Content-Type": "multipart/mixed; boundary=a"}, 415, "expected an image or multipart/form-data"),
    ("/detect", b"x", {"Content-Type": "multipart/form-data"}, 415, "with a boundary"),
    ("/detect", b"x", {"Content-Type": "multipart/form-data; boundary=a"}, 400, "broken multipart/form-data"),
    ("/detect", b"--a--\r\n", {"Content-Type": "multipart/form-data; boundary=a"}, 400, "no image"),
])
def test_what_is_refused(server: Serving, path: str, body: bytes, headers: dict[str, str], status: int,
                         message: str) -> None:
    answer = server.ask(path, body, **headers)
    assert answer.status == status
    assert message in answer.error


def test_another_field_is_named(server: Serving, images: list[bytes]) -> None:
    answer = server.send_form("/detect", ("file", "a.png", images[0]))
    assert (answer.status, answer.error) == (400, "expected fields image, got 'file'")
    two = [("image", "a.png", images[0])] * 2
    assert server.send_form("/detect", *two, Accept="image/png").status == 406
    assert server.send_form("/explain", *two).status == 400


def test_paths_and_methods_that_there_are_not(server: Serving) -> None:
    assert server.ask("/nowhere").status == 404
    assert server.ask("/page/../../limits.py").status == 404
    assert server.ask("/page/%2e%2e/limits.py").status == 404
    assert server.ask("/detect").status == 405


def test_bounds(detector: Detector, images: list[bytes]) -> None:
    limits = Limits(upload_bytes=10_000, pixels=50 * 40, pictures=2, queue=2)
    with serving(detector, limits) as server:
        assert server.ask("/detect", images[0]).status == 200
        assert server.ask("/detect", bytes(10_001)).status == 413
        large = server.ask("/detect", images[2])
        assert (large.status, large.error) == (422, "more than 2,000 pixels (40 x 64)")
        three = server.send_form("/detect", *[("image", "a.png", b"x")] * 3)
        assert (three.status, three.error) == (413, "expected at most 2 images")
        assert server.application.held.total == server.application.service.waiting == 0


def test_connections_and_bytes_of_all_clients(detector: Detector) -> None:
    with serving(detector, Limits(connections=2, upload_bytes=1000, held_bytes=1500)) as server:
        begun = b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + bytes(900)
        with server.connect() as first, server.connect() as second:
            first.sendall(begun)
            wait_for(lambda: server.application.held.total == 900)
            with server.connect() as third:
                assert third.recv(100).startswith(b"HTTP/1.1 503 ")
                assert third.recv(1000) == b""
            second.sendall(begun)
            answer = second.recv(1000)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in answer
        wait_for(lambda: server.application.held.total == 0)


def test_a_full_queue_and_time_that_is_over(detector: Detector, images: list[bytes]) -> None:
    with serving(detector, Limits(queue=1, pictures=1, seconds=0.5)) as server:
        held = threading.Event()
        server.application.service.worker.call(held.wait)       # the model is busy
        answers = []
        late = threading.Thread(target=lambda: answers.append(server.ask("/detect", images[0])))
        late.start()
        wait_for(lambda: server.application.service.waiting == 1)
        full = server.ask("/detect", images[0])
        late.join()
        held.set()
        assert full.status == 503
        assert int(full.headers["retry-after"]) >= 1
        assert answers[0].status == 504
        assert server.ask("/detect", images[0]).status == 200


def test_work_for_a_client_that_has_gone_is_given_up(detector: Detector, images: list[bytes]) -> None:
    with serving(detector) as server:
        held = threading.Event()
        worker = server.application.service.worker
        worker.call(held.wait)
        client = server.connect()
        client.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
            len(images[0]), images[0]))
        wait_for(lambda: server.application.service.waiting == 1)
        client.close()
        wait_for(lambda: server.application.service.waiting == 0)
        held.set()
        assert server.ask("/detect", images[0]).status == 200
        counted = server.ask("/metrics").content.decode()
        assert 'ddetr_requests_total{path="/detect",status="499"} 1.0' in counted
        assert "ddetr_model_seconds_count 1.0" in counted


def test_images_of_one_shape_share_a_run(detector: Detector, images: list[bytes]) -> None:
    with serving(detector) as server:       # 64 x 96 pixels: "auto" takes 16 on a CPU
        held = threading.Event()
        server.application.service.worker.call(held.wait)
        answers: dict[int, Any] = {}
        clients = [threading.Thread(target=lambda number=number: answers.update(
            {number: server.ask(f"/detect?threshold=0&top_k={number + 1}", images[number % 2]).json()}))
            for number in range(8)]
        for client in clients:
            client.start()
        wait_for(lambda: len(server.application.service.worker._waiting) == 8)
        held.set()
        for client in clients:
            client.join()
        for number, answer in answers.items():
            wanted = expected(detector, images[number % 2], top_k=number + 1)["detections"]
            assert [each["label"] for each in answer["detections"]] == [each["label"] for each in wanted]
            boxes = [[each["box"] for each in found] for found in (answer["detections"], wanted)]
            assert np.allclose(*boxes, atol=0.05)
        assert 'ddetr_batch_images_bucket{le="4.0"} 2.0' in server.ask("/metrics").content.decode()


def test_a_token(detector: Detector, images: list[bytes]) -> None:
    with serving(detector, token="correct-horse-battery") as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic correct-horse-battery"},
                        {"Authorization": "Bearer correct-horse-battery2"}, {"Authorization": "correct-horse-battery"}):
            answer = server.ask("/detect", images[0], **headers)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert server.ask("/metrics", **headers).status == 401
        right = {"Authorization": "bearer correct-horse-battery"}
        assert server.ask("/detect", images[0], **right).status == 200
        assert server.ask("/metrics", **right).status == 200
        for path in ("/", "/page/main.js", "/healthz", "/readyz", "/openapi.json"):
            assert server.ask(path).status == 200, path
        description = server.ask("/openapi.json").json()
        assert description["paths"]["/detect"]["post"]["security"] == [{"token": []}]


def test_an_origin_that_may_ask(detector: Detector, images: list[bytes]) -> None:
    with serving(detector, origins=("https://example.org",)) as server:
        allowed = server.ask("/detect", images[0], Origin="https://example.org")
        assert allowed.headers["access-control-allow-origin"] == "https://example.org"
        assert "access-control-allow-origin" not in server.ask("/detect", images[0], Origin="https://evil.test").headers
        before = server.ask("/detect", method="OPTIONS", Origin="https://example.org",
                            Access_Control_Request_Method="POST", Access_Control_Request_Headers="authorization")
        assert before.status == 200


def test_a_page_elsewhere_may_not_send_its_forms_here(detector: Detector, images: list[bytes]) -> None:
    with serving(detector, origins=("https://example.org",)) as server:
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert server.ask("/detect", images[0], Origin="https://evil.test", **foreign).status == 403
        assert server.ask("/detect", images[0], **foreign).status == 403
        assert server.ask("/detect", images[0], Origin="https://example.org", **foreign).status == 200
        assert server.ask("/", **foreign).status == 200         # a link


def test_a_server_for_this_machine_answers_to_its_names_alone(detector: Detector) -> None:
    with serving(detector, hosts=("127.0.0.1", "::1", "localhost")) as server:
        for host in ("127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:8000"):
            assert server.ask("/healthz", Host=host).status == 200, host
        for host in ("evil.test", "evil.test:8000", "localhost.evil.test", ""):
            assert server.ask("/healthz", Host=host).status in (400, 421), host


def test_an_error_of_ours_is_an_answer(server: Serving, images: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(server.application.service.worker.detector, "run", fail)
    answer = server.ask("/detect", images[0])
    assert (answer.status, answer.error) == (500, "the server failed; its log says why")
    monkeypatch.undo()
    assert server.ask("/detect", images[0]).status == 200
