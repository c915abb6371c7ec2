"""A data set's images with truth beside detections, for a person to browse after a training."""

import io
from itertools import islice
from typing import Any

import numpy as np
import PIL.Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deformable_detr.datasets.findings import DataError
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.report.classes import SIZE_LIMITS
from deformable_detr.report.comparing import Comparison, compare
from deformable_detr.report.errors import MEANINGS, MISSED, Outcome, Outcomes, judge
from deformable_detr.report.thresholds import at_thresholds, best
from deformable_detr.server.service import Service
from deformable_detr.text import printable

LEAST_SCORE = 0.05      # of a detection that the page gets
SIDE = 1280             # pixels of an image's longer side, at most
QUALITY = 88


class Review:
    """What an evaluation found, as the page takes it."""

    def __init__(self, evaluator: CocoEvaluator, service: Service) -> None:
        self._annotations, self._service = evaluator.annotations, service
        outcomes = judge(evaluator)
        chosen = best(at_thresholds(outcomes, int(outcomes.counted.sum())))
        kinds = {kind.name.lower(): meaning for kind, meaning in MEANINGS.items()} | {"missed": MISSED}
        self.data = {"names": list(map(printable, self._annotations.names)), "threshold": chosen.threshold,
                     "leastScore": LEAST_SCORE, "sizeLimits": SIZE_LIMITS, "kinds": kinds,
                     "images": _images(evaluator, outcomes)}

    @property
    def routes(self) -> list[Route]:
        return [Route("/review/data.json", self._send_data), Route("/review/images/{index:int}", self._send_image)]

    async def _send_data(self, _: Request) -> Response:
        return JSONResponse(self.data)

    async def _send_image(self, request: Request) -> Response:
        index = request.path_params["index"]
        if index >= len(self._annotations.images):
            raise HTTPException(404, f"expected an image below {len(self._annotations.images)}, got {index}")
        try:
            content = await self._service.read(lambda: self._jpeg(index))
        except (DataError, MemoryError) as error:
            raise HTTPException(422, printable(str(error))) from None
        return Response(content, media_type="image/jpeg")

    def _jpeg(self, index: int) -> bytes:
        image = PIL.Image.fromarray(self._annotations.read_image(index))
        image.thumbnail((SIDE, SIDE))
        content = io.BytesIO()
        image.save(content, "JPEG", quality=QUALITY)
        return content.getvalue()


def _images(evaluator: CocoEvaluator, outcomes: Outcomes) -> list[dict[str, Any]]:
    """An entry for each image, in the order of the annotations."""
    entries: dict[int, dict[str, Any]] = {}
    kinds, targets = iter(outcomes.kinds.tolist()), iter(outcomes.targets.tolist())
    for comparison in compare(evaluator):       # in the order of the outcomes
        number = len(comparison.scores)
        entries[comparison.image] = _entry(evaluator, comparison, list(islice(kinds, number)),
                                           list(islice(targets, number)))
    return [entries[index] for index in range(len(evaluator.annotations.images))]


def _entry(evaluator: CocoEvaluator, comparison: Comparison, kinds: list[int], targets: list[int]) -> dict[str, Any]:
    """`target` is the object's place among the image's objects, -1 for none."""
    record = evaluator.annotations.images[comparison.image]
    place = {row: index for index, row in enumerate(comparison.rows.tolist())}
    areas = evaluator.annotations.areas[comparison.rows].tolist()
    found = [{"label": int(label), "score": round(float(score), 4), "box": _corners(box),
              "kind": Outcome(kind).name.lower(), "target": place.get(target, -1)}
             for label, score, box, kind, target in zip(comparison.labels, comparison.scores, comparison.boxes, kinds,
                                                        targets, strict=True) if score >= LEAST_SCORE]
    truth = [{"label": int(label), "box": _corners(box), "area": round(area, 1), "crowd": bool(crowd)}
             for label, box, area, crowd in zip(comparison.object_labels, comparison.objects, areas, comparison.crowd,
                                                strict=True)]
    return {"file": printable(record.file_name), "width": record.width, "height": record.height, "truth": truth,
            "found": found}


def _corners(box: np.ndarray) -> list[float]:
    x, y, width, height = box.tolist()
    return [round(edge, 2) for edge in (x, y, x + width, y + height)]
