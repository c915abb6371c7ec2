"""What a client gets: JSON as `ddetr detect --json` prints it, an annotated image, or an error as JSON."""

from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deformable_detr.detect.batches import Problem
from deformable_detr.detections import Detections
from deformable_detr.images import ImageError
from deformable_detr.server.service import Upload
from deformable_detr.text import printable

JSON, JPEG, PNG = "application/json", "image/jpeg", "image/png"
OFFERED = {JSON: JSON, JPEG: JPEG, PNG: PNG, "*/*": JSON, "application/*": JSON, "image/*": JPEG}
KINDS = {JPEG: "JPEG", PNG: "PNG"}      # as Pillow calls them


def wanted_type(request: Request) -> str:
    """The media type of the answer, by the header Accept; 406 where none of those asked for is offered."""
    accept = request.headers.get("accept", "*/*")
    asked = [_with_quality(part) for part in accept.split(",")]
    for quality, name in sorted(asked, key=lambda each: -each[0]):
        if quality > 0 and name in OFFERED:
            return OFFERED[name]
    raise HTTPException(406, f"Accept: expected {JSON}, {JPEG} or {PNG}, got {printable(accept[:100])}")


def _with_quality(part: str) -> tuple[float, str]:
    name, *parameters = (each.strip() for each in part.lower().split(";"))
    quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    try:
        return float(quality), name
    except ValueError:
        return 0, name


def found_json(uploads: Sequence[Upload], results: Sequence[Detections | Problem],
               category_ids: Sequence[int]) -> Response:
    """An object for one image, a list for several; in a list, an image that failed has its error."""
    if len(uploads) == 1:
        return JSONResponse({"file": uploads[0].name, **whole(results[0]).to_dict(category_ids)})
    return JSONResponse([{"file": upload.name, **_entry(result, category_ids)}
                         for upload, result in zip(uploads, results, strict=True)])


def _entry(result: Detections | Problem, category_ids: Sequence[int]) -> dict[str, Any]:
    return result.to_dict(category_ids) if isinstance(result, Detections) else {"error": reason(result)}


def whole(result: Detections | Problem) -> Detections:
    """The detections; 422 where there are none, or 413 for an image that memory does not hold."""
    if isinstance(result, Detections):
        return result
    raise HTTPException(413 if isinstance(result, MemoryError) else 422, reason(result))


def reason(problem: Problem) -> str:
    """One line for a client."""
    text = problem.reason_for(None) if isinstance(problem, ImageError) else str(problem)
    return printable(" ".join(text.split()))


def error_json(_: Request, error: Exception) -> Response:
    """The answer of an HTTPException."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
