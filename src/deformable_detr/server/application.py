"""The paths of the server, and what each does."""

import asyncio
import math
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from deformable_detr.detect.batches import PROBLEMS
from deformable_detr.detect.detector import Detector
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.server.answers import JSON, KINDS, error_json, found_json, reason, wanted_type, whole
from deformable_detr.server.guard import Doors, Guard
from deformable_detr.server.limits import MAX_TOP_K, Limits
from deformable_detr.server.metrics import Metrics
from deformable_detr.server.openapi import openapi
from deformable_detr.server.pages import page_routes
from deformable_detr.server.review import Review
from deformable_detr.server.service import Service, Upload
from deformable_detr.server.uploads import Held, read_uploads

Answer = TypeVar("Answer")

PARAMETERS = ("threshold", "top_k")
EXPLANATIONS = 16       # whose pages are kept, some megabytes each
FRAME_POLICY = ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts")


class Application:
    """A detector as an ASGI application: `app`. What an `evaluator` has been given can be reviewed."""

    def __init__(self, detector: Detector, limits: Limits, doors: Doors = Doors(),  # noqa: B008  (it is frozen)
                 evaluator: CocoEvaluator | None = None) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.service = Service(detector, limits, self.metrics)
        self.held = Held(limits)
        self.metrics.watch(lambda: self.service.waiting, lambda: self.held.total)
        self._explanations: OrderedDict[str, bytes] = OrderedDict()
        self._description = openapi(limits, doors.token is not None)
        pages = page_routes(detector, limits, doors.token is not None, evaluator is not None)
        routes = [
            Route("/detect", self.detect, methods=["POST"]), Route("/explain", self.explain, methods=["POST"]),
            Route("/explanations/{name}", self.explanation), Route("/healthz", self.healthz),
            Route("/readyz", self.readyz), Route("/metrics", self.show_metrics),
            Route("/openapi.json", self.describe),
            *(Review(evaluator, self.service).routes if evaluator else [])]
        known = [route.path for route in [*routes, *pages]]
        everybody = ["/healthz", "/readyz", "/openapi.json", "/explanations/", *(route.path for route in pages)]
        middleware = [Middleware(Guard, metrics=self.metrics, doors=doors, open_paths=everybody, known_paths=known)]
        if doors.origins:
            middleware.insert(0, Middleware(CORSMiddleware, allow_origins=doors.origins, allow_methods=["GET", "POST"],
                                            allow_headers=["Authorization", "Content-Type"]))
        self.app = Starlette(routes=[*routes, *pages], middleware=middleware, lifespan=self._lifespan,
                             exception_handlers={HTTPException: error_json})
        self.app.router.redirect_slashes = False

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.service.stop)

    def begin_end(self) -> None:
        """From now on `/readyz` says no."""
        self.service.is_ending = True

    async def detect(self, request: Request) -> Response:
        threshold, top_k = self._parameters(request)
        kind = wanted_type(request)
        with self.held.body() as body:
            uploads = await read_uploads(request, body, self.limits)
            if kind != JSON and len(uploads) > 1:
                raise HTTPException(406, f"Accept: {kind} is for one image, got {len(uploads)}; several are {JSON}")
            with self.service.admitted(len(uploads)):
                return await self._in_time(request, self._detect(uploads, threshold, top_k, kind))

    async def _detect(self, uploads: list[Upload], threshold: float, top_k: int, kind: str) -> Response:
        results = await self.service.detect(uploads, threshold, top_k)
        if kind == JSON:
            return found_json(uploads, results, self.service.detector.info.category_ids)
        try:
            return Response(await self.service.draw(uploads[0], whole(results[0]), KINDS[kind]), media_type=kind)
        except OSError:     # Pillow's, for more than 65535 pixels in a row
            raise HTTPException(422, f"this image is too large for {kind}") from None

    async def explain(self, request: Request) -> Response:
        threshold, top_k = self._parameters(request)
        with self.held.body() as body:
            uploads = await read_uploads(request, body, self.limits)
            if len(uploads) > 1:
                raise HTTPException(400, f"expected one image, got {len(uploads)}")
            with self.service.admitted(1):
                try:
                    made = await self._in_time(request, self.service.explain(uploads[0], threshold, top_k))
                except PROBLEMS as problem:
                    raise HTTPException(413 if isinstance(problem, MemoryError) else 422, reason(problem)) from None
        # An address that cannot be guessed: a frame sends no token.
        name = secrets.token_urlsafe(16)
        self._explanations[name] = made.page
        while len(self._explanations) > EXPLANATIONS:
            self._explanations.popitem(last=False)
        return JSONResponse({"page": f"/explanations/{name}", "queries": made.queries})

    async def explanation(self, request: Request) -> Response:
        page = self._explanations.get(request.path_params["name"])
        if page is None:
            raise HTTPException(404, "this explanation is no longer kept; ask for it again")
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": FRAME_POLICY})

    async def healthz(self, _: Request) -> Response:
        alive = self.service.worker.is_alive
        return PlainTextResponse("alive\n" if alive else "the model's thread has ended\n", 200 if alive else 503)

    async def readyz(self, _: Request) -> Response:
        ready = self.service.is_ready
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def show_metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def describe(self, _: Request) -> Response:
        return JSONResponse(self._description)

    def _parameters(self, request: Request) -> tuple[float, int]:
        """The threshold and top_k; 400 for values and names that there are not."""
        given = dict(request.query_params)
        for name in given:
            if name not in PARAMETERS:
                raise HTTPException(400, f"expected the parameters {' and '.join(PARAMETERS)}, got {name[:100]!r}")
        default = self.service.detector.info.postprocessing.threshold
        threshold = _number(given.get("threshold"), default)
        if not 0 <= threshold <= 1:
            raise HTTPException(400, f"threshold: expected a number from 0 to 1, got {given['threshold'][:100]!r}")
        top_k = _number(given.get("top_k"), 100)
        if not (1 <= top_k <= MAX_TOP_K and top_k == int(top_k)):
            raise HTTPException(400, f"top_k: expected a whole number from 1 to {MAX_TOP_K}, "
                                     f"got {given['top_k'][:100]!r}")
        return threshold, int(top_k)

    async def _in_time(self, request: Request, work: Awaitable[Answer]) -> Answer:
        """The result; 504 if it takes too long. Work for a client that has gone is given up."""
        doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_leaving(request))
        try:
            done, _ = await asyncio.wait({doing, leaving}, timeout=self.limits.seconds,
                                         return_when=asyncio.FIRST_COMPLETED)
            if doing in done:
                return doing.result()
            if leaving in done:
                raise ClientDisconnect
            raise HTTPException(504, f"it took more than {self.limits.seconds:g} s")
        finally:
            doing.cancel()
            leaving.cancel()


async def _leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _number(text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        return math.nan
