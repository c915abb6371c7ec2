"""The page for people: its files, read once when the server starts."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deformable_detr.detect.detector import Detector
from deformable_detr.server.limits import Limits
from deformable_detr.text import printable
from deformable_detr.web.pages import render

FOLDER = Path(__file__).parent / "page"
SCRIPTS = ("state", "asking", "pictures", "drawing", "explaining", "zip", "exporting", "camera", "controls", "main")
REVIEW_SCRIPTS = ("review", "ranking", "comparing")


def page_routes(detector: Detector, limits: Limits, needs_token: bool, has_review: bool = False) -> list[Route]:
    """A path for each file; with a review, its page's too."""
    settings = {"names": list(map(printable, detector.names)), "categoryIds": list(detector.info.category_ids),
                "threshold": detector.info.postprocessing.threshold, "uploadBytes": limits.upload_bytes,
                "needsToken": needs_token, "hasReview": has_review}
    files = {
        "/": (render("server/page/page.html.jinja", settings=settings), "text/html"),
        "/page/page.css": (render("server/page/page.css.jinja"), "text/css"),
        **{f"/page/{name}.js": ((FOLDER / f"{name}.js").read_bytes(), "text/javascript") for name in SCRIPTS}}
    if has_review:
        files |= {"/review": (render("server/page/review.html.jinja", settings=settings), "text/html"),
                  "/page/review.css": (render("server/page/review.css.jinja"), "text/css"),
                  **{f"/page/{name}.js": ((FOLDER / f"{name}.js").read_bytes(), "text/javascript")
                     for name in REVIEW_SCRIPTS}}
    return [_route(path, content, kind) for path, (content, kind) in files.items()]


def _route(path: str, content: bytes, kind: str) -> Route:
    async def answer(_: Request) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return Route(path, answer)
