"""The command: what it refuses, and a process that serves until a signal."""

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
from importlib import util
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from deformable_detr import Detector, cli
from helpers.image_files import colours
from helpers.serving import wait_for

Captured = pytest.CaptureFixture[str]
BLOOD_CELLS = Path(__file__).parents[1] / "fixtures" / "bccd"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--token-file", "none"], "cannot be read"),
    (["--token-file", "short"], "--token-file: expected at least 16 ASCII letters"),
    (["--port", "70000"], "port"),
    (["--host", "256.0.0.1"], "--host 256.0.0.1 --port 8000: "),
    (["--max-pictures", "65"], "queue: expected at least as many as the images of a request (65), got 64"),
    (["--timeout", "0"], "timeout"),
    (["--data", "nowhere"], "nowhere"),
    (["--data", str(BLOOD_CELLS), "--split", "other"], "no split 'other'; the COCO data set there has train, val"),
    (["--data", str(BLOOD_CELLS), "--port", "0"], "class"),     # the weights know none of its classes
    (["--device", "abacus", "--port", "0"], "device: 'abacus' is not available here"),
])
def test_wrong_calls(folder: Path, tiny_weights: str, arguments: list[str], message: str, capsys: Captured) -> None:
    (folder / "short").write_text("secret\n")
    assert cli.main(["serve", "--weights", tiny_weights, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken(folder: Path, tiny_weights: str, capsys: Captured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", "--weights", tiny_weights, "--port", port]) == 2
    assert capsys.readouterr().err == f"ddetr: --host 127.0.0.1 --port {port}: Address already in use\n"


def test_without_the_extra(tiny_weights: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr("deformable_detr.cli.serve.find_spec",
                        lambda name: None if name == "uvicorn" else util.find_spec(name))
    assert cli.main(["serve", "--weights", tiny_weights]) == 2
    assert capsys.readouterr().err == "ddetr: serve needs uvicorn: pip install 'deformable-detr[serve]'\n"


def test_a_stop_under_load_answers_what_was_accepted(folder: Path, tiny_weights: str) -> None:
    """Clients ask again and again while the process is told to end: each gets its answer, or cannot connect."""
    content = io.BytesIO()
    PIL.Image.fromarray(colours()).save(content, "PNG")
    wanted = Detector(tiny_weights, "cpu")(content.getvalue(), 0)
    (folder / "token").write_text("0123456789abcdef\n")
    command = [sys.executable, "-m", "deformable_detr", "serve", "--weights", tiny_weights, "--port", "0",
               "--token-file", "token", "--quiet", "--batch-size", "1"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        port = int(process.stdout.readline().split()[0].rpartition(":")[2])
        answers: list[Any] = []
        clients = [threading.Thread(target=ask_until_refused, args=(port, content.getvalue(), answers))
                   for _ in range(8)]
        for client in clients:
            client.start()
        wait_for(lambda: len(answers) > 20)
        process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join()
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
    assert all(answer == {"file": "image", **wanted.to_dict((1, 17, 90))} for answer in answers), answers[-8:]
    assert sorted(path.name for path in folder.iterdir()) == ["token"]      # nothing was written


def ask_until_refused(port: int, content: bytes, answers: list[Any]) -> None:
    """Append each answer, or the error if there is none, until no connection can be made."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.connect()
        except ConnectionRefusedError:
            return
        try:
            connection.request("POST", "/detect?threshold=0", content, {"Authorization": "Bearer 0123456789abcdef"})
            answers.append(json.loads(connection.getresponse().read()))
        except (OSError, http.client.HTTPException) as error:
            answers.append(repr(error))
        finally:
            connection.close()
