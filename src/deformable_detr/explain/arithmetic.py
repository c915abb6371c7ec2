"""The sum of a deformable attention in numbers: four corners of each point, in one channel of each head."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int64

from deformable_detr.explain.packing import pack

if TYPE_CHECKING:
    from deformable_detr.explain.explanation import Explanation


def arithmetic(explanation: "Explanation", queries: Sequence[int]) -> dict[str, Any]:
    """For some queries, in each decoder layer: what each head sums in the channel where its sum is largest.

    `corners` are the values at the top left, top right, bottom left and bottom right of each point, 0 outside the map.
    With the bilinear weights and the attention weights they give `outputs`, before the output projection.
    """
    if explanation.locations is None or explanation.weights is None:
        return {"queries": [], "layers": []}
    layers = []
    for layer, (locations, weights) in enumerate(zip(explanation.locations, explanation.weights, strict=True)):
        maps = [values.numpy() for values in explanation.values(layer)]
        layers.append(_layer(maps, locations[list(queries)].numpy(), weights[list(queries)].numpy(), explanation))
    return {"queries": list(queries), "layers": layers}


def _layer(maps: list[Float[np.ndarray, "M _ _ D"]], locations: Float[np.ndarray, "Q M L P 2"],
           weights: Float[np.ndarray, "Q M L P"], explanation: "Explanation") -> dict[str, Any]:
    corners, shares = [], []
    for level, (height, width) in enumerate(explanation.valid_shapes):
        position = locations[:, :, level].astype(np.float64) * (width, height) - 0.5
        corners.append(_corners(maps[level], np.floor(position).astype(np.int64)))
        shares.append(bilinear_weights(position))
    values, bilinear = np.stack(corners, axis=2), np.stack(shares, axis=2)     # Q M L P 4 D, Q M L P 4
    outputs = np.einsum("qmlp,qmlpc,qmlpcd->qmd", weights, bilinear, values)
    channels = np.abs(outputs).argmax(-1)
    chosen = np.take_along_axis(values, channels[:, :, None, None, None, None], axis=-1)[..., 0]
    return {"channels": pack(channels, "uint16"), "corners": pack(chosen),
            "outputs": pack(np.take_along_axis(outputs, channels[..., None], axis=-1)[..., 0])}


def bilinear_weights(position: Float[np.ndarray, "*points 2"]) -> Float[np.ndarray, "*points 4"]:
    """The shares of the four corners: top left, top right, bottom left, bottom right."""
    x, y = np.moveaxis(position - np.floor(position), -1, 0)
    return np.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], axis=-1)


def _corners(level: Float[np.ndarray, "M H W D"],
             first: Int64[np.ndarray, "Q M P 2"]) -> Float[np.ndarray, "Q M P 4 D"]:
    """The values at a cell and its neighbours on the right and below; 0 outside the map."""
    height, width = level.shape[1:3]
    heads = np.arange(len(level))[:, None]
    found = []
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, y = first[..., 0] + dx, first[..., 1] + dy
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        found.append(level[heads, y.clip(0, height - 1), x.clip(0, width - 1)] * inside[..., None])
    return np.stack(found, axis=-2)
