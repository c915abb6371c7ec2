"""What some tokens of the encoder read, packed for a page: too many to keep them all."""

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deformable_detr.explain.packing import Packed, pack, pack_maps, pack_rounded

if TYPE_CHECKING:
    from deformable_detr.explain.explanation import Explanation, Reading

NUM_BYTES = 750_000     # before base64


def encoder_data(explanation: "Explanation") -> dict[str, Any]:
    """`tokens`: level, row and column of each; what they read in each layer of the encoder."""
    tokens = _chosen_tokens(explanation)
    layers = [explanation.encoder_readings(layer, tokens) for layer in range(explanation.config.num_encoder_layers)]
    return {"tokens": pack(np.array([_place(explanation, token) for token in tokens]), "uint16"),
            "layers": [_packed_readings(readings, explanation.valid_shapes[0]) for readings in layers]}


def _chosen_tokens(explanation: "Explanation") -> list[int]:
    """Pairs of neighbours, spread evenly over each level: a token and the one on its right."""
    room = NUM_BYTES // _bytes_of_token(explanation)
    starts = [0, *accumulate(height * width for height, width in explanation.level_shapes)]
    tokens: list[int] = []
    for level, (height, width) in enumerate(explanation.valid_shapes):
        pairs = max(1, (room - len(tokens)) // (2 * (len(explanation.level_shapes) - level)))
        for y, x in _spread(height, max(1, width - 1), pairs):
            first = starts[level] + y * explanation.level_shapes[level][1] + x
            tokens += [first, first + 1] if width > 1 else [first]
    return list(dict.fromkeys(tokens))


def _bytes_of_token(explanation: "Explanation") -> int:
    layers = explanation.config.num_encoder_layers
    if explanation.weights is not None:
        return layers * explanation.weights[0][0].numel() * (2 * 2 + 1)
    height, width = explanation.level_shapes[0]
    return layers * height * width


def _spread(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """At most `count` cells of a grid, evenly spread, row by row."""
    rows = min(height, max(1, round((count * height / width) ** 0.5)))
    columns = min(width, max(1, count // rows))
    rows = min(height, max(1, count // columns))
    return [(int((row + 0.5) * height / rows), int((column + 0.5) * width / columns))
            for row in range(rows) for column in range(columns)]


def _place(explanation: "Explanation", token: int) -> tuple[int, int, int]:
    """Level, row and column of a token."""
    level = 0
    while token >= (size := explanation.level_shapes[level][0] * explanation.level_shapes[level][1]):
        token -= size
        level += 1
    return level, *divmod(token, explanation.level_shapes[level][1])


def _packed_readings(readings: "list[Reading]", valid: tuple[int, int]) -> dict[str, Packed | None]:
    """Points, or maps without padding, of which only the mean over the heads is kept."""
    if readings[0].locations is None:
        maps = torch.stack([reading.attention.mean(0, keepdim=True)[:, :valid[0], :valid[1]] for reading in readings
                            if reading.attention is not None])
        return {"locations": None, "weights": None, **pack_maps(maps)}
    # A point that is further outside than the image is large reads nothing, wherever it is.
    locations = np.stack([reading.locations.nan_to_num(nan=-1, posinf=2, neginf=-1).clamp(-1, 2)
                          for reading in readings if reading.locations is not None])
    weights = np.stack([reading.weights for reading in readings if reading.weights is not None])
    return {"locations": pack_rounded(locations, "uint16"), "weights": pack_rounded(weights, "uint8"),
            "attention": None, "peaks": None}
