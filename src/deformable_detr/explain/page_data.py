"""What the page of an explanation shows, as one object of JSON that stays small.

`docs/explain.md` describes its fields. The most is spent on exact points of the queries that matter; the rest is
rounded, or only some tokens of the encoder are kept.
"""

import base64
import io
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor

from deformable_detr.explain.arithmetic import arithmetic
from deformable_detr.explain.packing import Packed, pack, pack_rounded
from deformable_detr.text import printable

if TYPE_CHECKING:
    from deformable_detr.explain.explanation import Explanation, Reading

VERSION = 1
TITLES = {"deformable-detr": ("Deformable DETR", "2010.04159"), "detr": ("DETR", "2005.12872"),
          "dab-detr": ("DAB-DETR", "2201.12329"), "dab-deformable-detr": ("DAB-Deformable-DETR", "2201.12329"),
          "dino": ("DINO", "2203.03605")}

SIDE = 1000             # pixels of the shown image's longer side, at most
QUALITIES = (88, 75, 60, 40, 20)
# Bytes before base64, which makes four of three; the page's own scripts and styles come on top.
IMAGE_BYTES = 300_000
QUERY_BYTES = 550_000
TOKEN_BYTES = 750_000
ARITHMETIC_BYTES = 200_000
MAX_QUERIES = 60
LISTENED = 16           # other queries that are kept of a query's self-attention, the most heard


def page_data(explanation: "Explanation") -> dict[str, Any]:
    """The object; every text in it is as it came, so a page must escape it."""
    kept = _kept_queries(explanation)
    shown = _shown_image(explanation.image)
    return {
        "version": VERSION,
        "image": {"name": printable(explanation.name), "source": _encoded(shown), "width": shown.width,
                  "height": shown.height, "originalWidth": explanation.image.width,
                  "originalHeight": explanation.image.height},
        "model": _model(explanation),
        "classes": list(map(printable, explanation.class_names)),
        "detections": _detections(explanation, shown),
        "queries": {"index": kept.tolist()},
        "layers": [_layer(explanation, layer, kept) for layer in range(len(explanation.boxes))],
        "encoder": _encoder(explanation),
        "arithmetic": arithmetic(explanation, _explained(explanation)),
        "allQueries": {"boxes": _floats(explanation.boxes[-1]), "scores": _floats(explanation.scores[-1]),
                       "labels": pack(explanation.labels[-1].numpy(), "uint16")},
    }


def _model(explanation: "Explanation") -> dict[str, Any]:
    paper = explanation.config.paper
    title, arxiv = TITLES.get(paper, (paper, ""))
    levels = [{"height": height, "width": width, "validHeight": valid_height, "validWidth": valid_width,
               "stride": stride}
              for (height, width), (valid_height, valid_width), stride
              in zip(explanation.level_shapes, explanation.valid_shapes, explanation.strides, strict=True)]
    return {"paper": title, "arxiv": arxiv, "attention": "dense" if explanation.weights is None else "deformable",
            "layers": len(explanation.boxes), "encoderLayers": explanation.config.num_encoder_layers,
            "heads": explanation.config.num_heads, "levels": levels,
            "points": 0 if explanation.weights is None else explanation.weights[0].shape[-1],
            "numQueries": len(explanation.boxes[0]), "threshold": explanation.threshold}


def _detections(explanation: "Explanation", shown: PIL.Image.Image) -> list[dict[str, Any]]:
    """In pixels of the shown image."""
    scale = shown.width / explanation.image.width, shown.height / explanation.image.height
    boxes = explanation.detections.boxes * np.array(scale * 2)
    return [{"query": query, "label": printable(each.name), "score": round(each.score, 4),
             "box": [round(float(edge), 2) for edge in box]}
            for each, query, box in zip(explanation.detections, explanation.queries.tolist(), boxes, strict=True)]


def _kept_queries(explanation: "Explanation") -> Int64[Tensor, "kept"]:
    """The queries that found something, then the best of the others, as many as there is room for."""
    best = explanation.scores[-1].argsort(descending=True)
    queries = dict.fromkeys([*explanation.queries.tolist(), *best.tolist()])
    return torch.tensor(list(queries)[:min(MAX_QUERIES, max(1, QUERY_BYTES // _query_bytes(explanation)))])


def _query_bytes(explanation: "Explanation") -> int:
    """Bytes of a query's points or maps in all layers."""
    if explanation.weights is not None:
        return len(explanation.weights) * explanation.weights[0][0].numel() * 3 * 4
    assert explanation.attention is not None
    return len(explanation.attention) * explanation.attention[0][0].numel()


def _explained(explanation: "Explanation") -> list[int]:
    """The queries whose arithmetic is kept."""
    if explanation.weights is None:
        return []
    layers, points = len(explanation.weights), explanation.weights[0][0].numel()
    room = ARITHMETIC_BYTES // (layers * points * 4 * 4)
    return list(dict.fromkeys(_kept_queries(explanation).tolist()))[:max(1, room)]


def _layer(explanation: "Explanation", layer: int, kept: Int64[Tensor, "kept"]) -> dict[str, Any]:
    heard = explanation.self_attention[layer][kept].topk(min(LISTENED, explanation.self_attention[layer].shape[1]))
    reading = {"locations": None, "weights": None, "attention": None, "peaks": None}
    if explanation.locations is not None and explanation.weights is not None:
        reading |= {"locations": _floats(explanation.locations[layer][kept]),
                    "weights": _floats(explanation.weights[layer][kept])}
    elif explanation.attention is not None:
        reading |= _maps(explanation.attention[layer][kept])
    return {"references": _floats(explanation.references[layer][kept]),
            "boxes": _floats(explanation.boxes[layer][kept]),
            "scores": _floats(explanation.scores[layer][kept]),
            "labels": pack(explanation.labels[layer][kept].numpy(), "uint16"), **reading,
            "selfAttention": {"queries": pack(heard.indices.numpy(), "uint16"), "weights": _floats(heard.values)}}


def _maps(attention: Float[Tensor, "rows M H W"]) -> dict[str, Packed]:
    """Maps as shares of the largest weight of each head."""
    peaks = attention.flatten(2).amax(-1)
    shares = attention / peaks[..., None, None].clamp(min=torch.finfo(torch.float32).tiny)
    return {"attention": _packed_shares(shares), "peaks": _floats(peaks)}


def _packed_shares(shares: Float[Tensor, "*shape"]) -> Packed:
    return {**pack((shares * 255).round().numpy(), "uint8"), "scale": 1 / 255}


def _encoder(explanation: "Explanation") -> dict[str, Any]:
    tokens = _sampled_tokens(explanation)
    places = [_place(explanation, token) for token in tokens]
    layers = [explanation.encoder_readings(layer, tokens) for layer in range(explanation.config.num_encoder_layers)]
    return {"tokens": pack(np.array(places), "uint16"), "layers": [_readings(readings) for readings in layers]}


def _readings(readings: "list[Reading]") -> dict[str, Packed | None]:
    if readings[0].locations is None:
        maps = torch.stack([reading.attention for reading in readings if reading.attention is not None])
        return {"locations": None, "weights": None, **_maps(maps)}
    # A point that is further outside than the image is large reads nothing, wherever it is.
    locations = np.stack([reading.locations.nan_to_num(nan=-1, posinf=2, neginf=-1).clamp(-1, 2)
                          for reading in readings if reading.locations is not None])
    weights = np.stack([reading.weights for reading in readings if reading.weights is not None])
    return {"locations": pack_rounded(locations, "uint16"), "weights": pack_rounded(weights, "uint8"),
            "attention": None, "peaks": None}


def _sampled_tokens(explanation: "Explanation") -> list[int]:
    """Pairs of neighbours, spread evenly over each level: a token and the one on its right."""
    room = TOKEN_BYTES // _token_bytes(explanation)
    starts = [0, *accumulate(height * width for height, width in explanation.level_shapes)]
    tokens: list[int] = []
    for level, (height, width) in enumerate(explanation.valid_shapes):
        pairs = max(1, (room - len(tokens)) // (2 * (len(explanation.level_shapes) - level)))
        for y, x in _spread(height, max(1, width - 1), pairs):
            first = starts[level] + y * explanation.level_shapes[level][1] + x
            tokens += [first, first + 1] if width > 1 else [first]
    return list(dict.fromkeys(tokens))


def _spread(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """At most `count` cells of a grid, evenly spread, row by row."""
    rows = min(height, max(1, round((count * height / width) ** 0.5)))
    columns = min(width, max(1, count // rows))
    rows = min(height, max(1, count // columns))
    return [(int((row + 0.5) * height / rows), int((column + 0.5) * width / columns))
            for row in range(rows) for column in range(columns)]


def _token_bytes(explanation: "Explanation") -> int:
    heads, layers = explanation.config.num_heads, explanation.config.num_encoder_layers
    if explanation.weights is not None:
        return layers * explanation.weights[0][0].numel() * (2 * 2 + 1)
    height, width = explanation.level_shapes[0]
    return layers * heads * height * width


def _place(explanation: "Explanation", token: int) -> tuple[int, int, int]:
    """Level, row and column of a token."""
    level = 0
    while token >= (size := explanation.level_shapes[level][0] * explanation.level_shapes[level][1]):
        token -= size
        level += 1
    return level, *divmod(token, explanation.level_shapes[level][1])


def _floats(tensor: Num[Tensor, "*shape"]) -> Packed:
    return pack(tensor.numpy())


def _shown_image(image: PIL.Image.Image) -> PIL.Image.Image:
    scale = min(1.0, SIDE / max(image.size))
    if scale == 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))),
                        PIL.Image.Resampling.LANCZOS)


def _encoded(image: PIL.Image.Image) -> str:
    """A JPEG as a `data:` address, of the best quality that is not too large."""
    content = b""
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        content = file.getvalue()
        if len(content) <= IMAGE_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
