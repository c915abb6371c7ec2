"""What the page of an explanation shows, as one object of JSON that stays small.

`docs/explain.md` describes its fields. The points of the queries that matter are exact; the rest is rounded, and only
some tokens of the encoder are kept.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from deformable_detr.explain.arithmetic import arithmetic
from deformable_detr.explain.packing import image_address, pack, pack_floats, pack_maps
from deformable_detr.explain.tokens import encoder_data
from deformable_detr.text import printable

if TYPE_CHECKING:
    from deformable_detr.explain.explanation import Explanation

VERSION = 1
TITLES = {"deformable-detr": ("Deformable DETR", "2010.04159"), "detr": ("DETR", "2005.12872"),
          "dab-detr": ("DAB-DETR", "2201.12329"), "dab-deformable-detr": ("DAB-Deformable-DETR", "2201.12329"),
          "dino": ("DINO", "2203.03605")}     # and the paper's number at arXiv

SIDE = 1000             # pixels of the shown image's longer side, at most
# Bytes before base64, which makes four of three; the encoder's, and the page's own scripts and styles, come on top.
IMAGE_BYTES = 300_000
QUERY_BYTES = 550_000
ARITHMETIC_BYTES = 200_000
MAX_QUERIES = 60
FEWEST_QUERIES = 8      # whose maps of dense attention are kept for each head; if there is no room, the heads' mean
LISTENED = 16           # other queries that are kept of a query's self-attention, the most heard


def page_data(explanation: "Explanation") -> dict[str, Any]:
    """The object; its text has no control characters, but may have markup, which a page must escape."""
    maps = _maps_that_fit(explanation)
    bytes_of_query = sum(layer[0].numel() for layer in maps or ()) or 4 * 3 * _num_points(explanation)
    kept = _kept_queries(explanation, QUERY_BYTES // bytes_of_query)
    shown = _shown_image(explanation.image)
    explained = [] if maps else kept[:max(1, ARITHMETIC_BYTES // (4 * 4 * _num_points(explanation)))].tolist()
    return {
        "version": VERSION,
        "image": {"name": printable(explanation.name), "source": image_address(shown, IMAGE_BYTES),
                  "width": shown.width, "height": shown.height,
                  "originalWidth": explanation.image.width, "originalHeight": explanation.image.height},
        "model": _model(explanation),
        "classes": list(map(printable, explanation.class_names)),
        "detections": _detections(explanation, shown),
        "queries": {"index": kept.tolist()},
        "layers": [_layer(explanation, layer, kept, maps) for layer in range(len(explanation.boxes))],
        "encoder": encoder_data(explanation),
        "arithmetic": arithmetic(explanation, explained),
        "allQueries": {"boxes": pack_floats(explanation.boxes[-1]), "scores": pack_floats(explanation.scores[-1]),
                       "labels": pack(explanation.labels[-1].numpy(), "uint16")},
    }


def _model(explanation: "Explanation") -> dict[str, Any]:
    config = explanation.config
    title, arxiv = TITLES.get(config.paper, (config.paper, ""))
    levels = [{"height": height, "width": width, "validHeight": valid_height, "validWidth": valid_width,
               "stride": stride}
              for (height, width), (valid_height, valid_width), stride
              in zip(explanation.level_shapes, explanation.valid_shapes, explanation.strides, strict=True)]
    return {"paper": title, "arxiv": arxiv, "attention": "dense" if explanation.weights is None else "deformable",
            "layers": len(explanation.boxes), "encoderLayers": config.num_encoder_layers, "heads": config.num_heads,
            "levels": levels, "points": 0 if explanation.weights is None else explanation.weights[0].shape[-1],
            "numQueries": len(explanation.boxes[0]), "threshold": explanation.threshold}


def _detections(explanation: "Explanation", shown: PIL.Image.Image) -> list[dict[str, Any]]:
    """In pixels of the shown image."""
    scale = shown.width / explanation.image.width, shown.height / explanation.image.height
    boxes = explanation.detections.boxes * np.array(scale * 2)
    return [{"query": query, "label": printable(each.name), "score": round(each.score, 4),
             "box": [round(float(edge), 2) for edge in box]}
            for each, query, box in zip(explanation.detections, explanation.queries.tolist(), boxes, strict=True)]


def _num_points(explanation: "Explanation") -> int:
    """Points of a query in all decoder layers."""
    return sum(layer[0].numel() for layer in explanation.weights or ())


def _maps_that_fit(explanation: "Explanation") -> list[Float[Tensor, "Q _ H W"]] | None:
    """Dense attention without padding, its heads averaged where their maps are too large."""
    if explanation.attention is None:
        return None
    height, width = explanation.valid_shapes[0]
    maps = [layer[:, :, :height, :width] for layer in explanation.attention]
    fits = FEWEST_QUERIES * sum(layer[0].numel() for layer in maps) <= QUERY_BYTES
    return maps if fits else [layer.mean(1, keepdim=True) for layer in maps]


def _kept_queries(explanation: "Explanation", room: int) -> Int64[Tensor, "kept"]:
    """The queries that found something, then the best of the others, as many as there is room for."""
    best = explanation.scores[-1].argsort(descending=True)
    queries = list(dict.fromkeys([*explanation.queries.tolist(), *best.tolist()]))
    return torch.tensor(queries[:min(MAX_QUERIES, max(1, room))])


def _layer(explanation: "Explanation", layer: int, kept: Int64[Tensor, "kept"],
           maps: list[Float[Tensor, "Q _ H W"]] | None) -> dict[str, Any]:
    """What the kept queries read in a decoder layer, and what they answered after it."""
    reading = {"locations": None, "weights": None, "attention": None, "peaks": None}
    if explanation.locations is not None and explanation.weights is not None:
        reading |= {"locations": pack_floats(explanation.locations[layer][kept]),
                    "weights": pack_floats(explanation.weights[layer][kept])}
    if maps is not None:
        reading |= pack_maps(maps[layer][kept])
    heard = explanation.self_attention[layer][kept]
    heard = heard.topk(min(LISTENED, heard.shape[1]))
    return {"references": pack_floats(explanation.references[layer][kept]),
            "boxes": pack_floats(explanation.boxes[layer][kept]),
            "scores": pack_floats(explanation.scores[layer][kept]),
            "labels": pack(explanation.labels[layer][kept].numpy(), "uint16"), **reading,
            "selfAttention": {"queries": pack(heard.indices.numpy(), "uint16"), "weights": pack_floats(heard.values)}}


def _shown_image(image: PIL.Image.Image) -> PIL.Image.Image:
    scale = min(1.0, SIDE / max(image.size))
    if scale == 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))),
                        PIL.Image.Resampling.LANCZOS)
