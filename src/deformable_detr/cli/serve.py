"""`ddetr serve`: a detector over HTTP, and a page for people."""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from deformable_detr.cli.app import (
    USUAL,
    BatchSize,
    Count,
    MessageFlags,
    Messages,
    OptionalPath,
    PrecisionFlag,
    WrongCallError,
    app,
    find_weights_file,
    print_line,
    wrong_call_for,
)
from deformable_detr.cli.evaluate import find_split, report_limits
from deformable_detr.documents import DocumentError, read_lines
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from deformable_detr.datasets.folder import DataFolder
    from deformable_detr.detect.detector import Detector
    from deformable_detr.evaluation import CocoEvaluator

logger = logging.getLogger(__name__)

THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
FEWEST_LETTERS = 16     # of a token: shorter ones can be guessed

Port = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))]
Megabytes = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Seconds = Annotated[float, Parameter(validator=validators.Number(gt=0))]


@app.command
def serve(*, weights: str = DEMO, data: OptionalPath = None, split: str = "val", host: str = "127.0.0.1",
          port: Port = 8000, token_file: OptionalPath = None, allow_origin: list[str] | None = None,
          allow_host: list[str] | None = None, max_upload: Megabytes = 32, max_megapixels: Count = 50,
          max_pictures: Count = 16, max_queue: Count = 64, timeout: Seconds = 30, device: str = "auto",
          precision: PrecisionFlag = "fp32", batch_size: BatchSize = "auto", messages: MessageFlags = USUAL) -> int:
    """Serve a detector over HTTP, with a page for people at /. Needs `pip install 'deformable-detr[serve]'`.

    Parameters
    ----------
    weights
        "demo" for the packaged ones, a name that `ddetr weights` lists, "hf:owner/name", a file or a folder.
    data
        The folder of a data set: the weights are evaluated on it first, and /review shows truth beside detections.
    split
        Which of the data set's splits.
    host
        The address to listen at: 127.0.0.1 for this machine alone, 0.0.0.0 for others too.
    port
        The port; 0 for one that is free, which is printed.
    token_file
        A file whose first line is a token that clients must send: `Authorization: Bearer TOKEN`.
    allow_origin
        An origin, such as https://tools.example.org, whose pages may ask; may be given more than once.
    allow_host
        A name by which the server is called; may be given more than once. By default any, but a server for this machine
        alone answers only to localhost and its addresses.
    max_upload
        Megabytes of a request.
    max_megapixels
        Of an image.
    max_pictures
        Of a request.
    max_queue
        Images of all requests that may wait; more are refused with 503.
    timeout
        Seconds that a request may take; 504 after that.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps", ...
    precision
        "fp32", "bf16" or "fp16" for the heavy products; "auto" takes bf16 where that is faster, and says so.
    batch_size
        Images at a time, of those that wait and have one shape; "auto" for what does not slow this device down.
    """
    messages.start()
    _check_installed()
    token = None if token_file is None else _token(token_file)
    weights_file = find_weights_file(weights)
    with wrong_call_for(ValueError, OSError):
        chosen = None if data is None else find_split(data, split)

    from deformable_detr.server.limits import Limits
    from deformable_detr.server.running import Server, address_of

    with wrong_call_for(ValueError):
        limits = Limits(upload_bytes=max_upload * 2**20, pixels=max_megapixels * 10**6, pictures=max_pictures,
                        queue=max_queue, seconds=timeout, held_bytes=max(256, 4 * max_upload) * 2**20)
    with _listen(host, port) as listener:
        from deformable_detr.detect.detector import Detector
        from deformable_detr.server.application import Application
        from deformable_detr.server.guard import Doors

        with wrong_call_for(ValueError):
            detector = Detector(weights_file, device, precision=precision, batch_size=batch_size)
        logger.debug("%s: %r", weights, detector)
        evaluator = None if chosen is None else _evaluated(detector, *chosen, messages)
        hosts = _hosts(host, allow_host or ())
        application = Application(detector, limits, Doors(token, tuple(allow_origin or ()), hosts), evaluator)
        if token is None and host not in THIS_MACHINE:
            logger.warning("%s: everybody who reaches this address can use it; --token-file asks for a token", host)
        print_line(f"{address_of(listener)}{'/review' if evaluator else ''} (Ctrl-C ends it)")
        Server(application.app, limits, application.begin_end).run(sockets=[listener])
    return 0


def _hosts(host: str, allowed: Sequence[str]) -> tuple[str, ...] | None:
    """The names by which the server may be called; None for any."""
    if host in THIS_MACHINE or allowed:
        return *THIS_MACHINE, *(name.lower() for name in allowed)
    return None


def _evaluated(detector: "Detector", folder: "DataFolder", split: str, messages: Messages) -> "CocoEvaluator":
    """What the detector finds in a split."""
    from deformable_detr.detect.evaluating import evaluate
    from deformable_detr.evaluation import match_names
    from deformable_detr.loading.dataset import DetectionDataset

    with wrong_call_for(ValueError, OSError, MemoryError):
        dataset = DetectionDataset(folder, split, progress=messages.progress)
        match_names(detector.names, dataset.names)
        evaluator = evaluate(detector, dataset, messages.progress)
    report_limits(evaluator)
    return evaluator


def _check_installed() -> None:
    for package in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
        if find_spec(package) is None:
            raise WrongCallError(f"serve needs {package}: pip install 'deformable-detr[serve]'")


def _token(file: "Path") -> str:
    with wrong_call_for(DocumentError):
        lines = read_lines(file)
    token = lines[0].strip()
    if len(token) < FEWEST_LETTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise WrongCallError(f"--token-file: expected at least {FEWEST_LETTERS} ASCII letters without spaces in the "
                             f"first line of {file}")
    return token


def _listen(host: str, port: int) -> "socket.socket":
    from deformable_detr.server.running import listen

    try:
        return listen(host, port)
    except OSError as error:
        raise WrongCallError(f"--host {host} --port {port}: {error.strerror or error}") from None
