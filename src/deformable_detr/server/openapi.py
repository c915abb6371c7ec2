"""The description of the interface for programs, as OpenAPI 3.1."""

from typing import Any

from deformable_detr import __version__
from deformable_detr.server.limits import MAX_TOP_K, Limits

THRESHOLD = {"name": "threshold", "in": "query", "description": "The lowest score; by default the one kept with the "
             "weights.", "schema": {"type": "number", "minimum": 0, "maximum": 1}}
TOP_K = {"name": "top_k", "in": "query", "description": "The most detections of an image.",
         "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K, "default": 100}}
ERRORS = {"400": "A parameter or the form is wrong.", "401": "The token is missing or wrong.",
          "403": "Pages of other origins may not ask.", "408": "The body came too slowly.",
          "413": "More bytes, images or memory than allowed.",
          "415": "The body is neither an image nor multipart/form-data, or it is compressed.",
          "422": "No image that can be read.", "503": "Too many images wait; Retry-After says when to come again.",
          "504": "It took too long."}
NUMBER = {"type": "number"}
WHOLE = {"type": "integer", "minimum": 0}
DETECTION = {
    "type": "object", "additionalProperties": False, "required": ["label", "name", "score", "box", "category_id"],
    "properties": {"label": {**WHOLE, "description": "The class index."}, "name": {"type": "string"},
                   "score": {"type": "number", "minimum": 0, "maximum": 1},
                   "box": {"type": "array", "items": NUMBER, "minItems": 4, "maxItems": 4,
                           "description": "x0, y0, x1, y1 in pixels of the upright image."},
                   "category_id": {"type": "integer", "description": "The class's id in the data it was trained on."}}}
FOUND = {
    "type": "object", "additionalProperties": False, "required": ["file", "width", "height", "detections"],
    "properties": {"file": {"type": "string"}, "width": WHOLE, "height": WHOLE,
                   "detections": {"type": "array", "items": {"$ref": "#/components/schemas/Detection"}}}}
FAILED = {"type": "object", "additionalProperties": False, "required": ["file", "error"],
          "properties": {"file": {"type": "string"}, "error": {"type": "string"}}}
ERROR = {"type": "object", "additionalProperties": False, "required": ["error"],
         "properties": {"error": {"type": "string"}}}
EXPLAINED = {"type": "object", "additionalProperties": False, "required": ["page", "queries"],
             "properties": {"page": {"type": "string", "description": "Where the page is, for a while."},
                            "queries": {"type": "array", "items": WHOLE, "description": "Of each detection."}}}


def openapi(limits: Limits, needs_token: bool) -> dict[str, Any]:
    """The whole description."""
    protected: dict[str, Any] = {"security": [{"token": []}]} if needs_token else {}
    schemas = {"Detection": DETECTION, "Found": FOUND, "Failed": FAILED, "Error": ERROR, "Explained": EXPLAINED}
    components: dict[str, Any] = {"schemas": schemas}
    if needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "ddetr serve", "version": __version__, "license": {"name": "Apache-2.0"},
                 "description": "Objects in images, by one detector."},
        "paths": {
            "/detect": {"post": {**_posting("detect", "Find objects in images.", limits), **protected, "responses": {
                "200": {"description": "What was found: an object for one image, a list for several.",
                        "content": {**_json({"oneOf": [_schema("Found"), {"type": "array", "items": {
                            "oneOf": [_schema("Found"), _schema("Failed")]}}]}), **_binary("image/jpeg", "image/png")}},
                **_errors("406", "The header Accept asks for what is not offered, or for one drawing of several "
                                 "images.")}}},
            "/explain": {"post": {**_posting("explain", "Where the model looks in one image, as a page.", limits),
                                  **protected, "responses": {
                "200": {"description": "The address of the page.", "content": _json(_schema("Explained"))},
                **_errors()}}},
            "/healthz": {"get": _probe("health", "Whether the server is alive.")},
            "/readyz": {"get": _probe("readiness", "Whether it is warm and takes requests.")},
            "/metrics": {"get": {"operationId": "metrics", "summary": "Numbers for Prometheus.", **protected,
                                 "responses": {"200": {"description": "Prometheus's text.",
                                                       "content": _text()}, "401": _error(ERRORS["401"])}}},
        },
        "components": components,
    }


def _posting(name: str, summary: str, limits: Limits) -> dict[str, Any]:
    image = {"type": "string", "format": "binary"}
    form = {"type": "object", "required": ["image"], "additionalProperties": False, "properties": {
        "image": {"type": "array", "items": image, "minItems": 1, "maxItems": limits.pictures}}}
    return {"operationId": name, "summary": summary, "parameters": [THRESHOLD, TOP_K],
            "requestBody": {"required": True, "description": f"At most {limits.upload_bytes:,} bytes and "
                            f"{limits.pixels:,} pixels an image.",
                            "content": {**_binary("image/*", "application/octet-stream"),
                                        "multipart/form-data": {"schema": form}}}}


def _probe(name: str, summary: str) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "responses": {
        "200": {"description": "Yes.", "content": _text()}, "503": {"description": "No.", "content": _text()}}}


def _errors(*further: str) -> dict[str, Any]:
    pairs = dict(zip(further[::2], further[1::2], strict=True))
    return {status: _error(text) for status, text in sorted({**ERRORS, **pairs}.items())}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": _json(_schema("Error"))}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _text() -> dict[str, Any]:
    return {"text/plain": {"schema": {"type": "string"}}}


def _binary(*kinds: str) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
