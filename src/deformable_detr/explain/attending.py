"""Where a query looks: computed from the inputs of an attention layer, in [0, 1] of the unpadded image."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from deformable_detr.explain.collecting import Call
from deformable_detr.model.attention import DeformableAttention
from deformable_detr.model.dense_attention import Compared, dense_weights
from deformable_detr.ops.reference import attention_weights, positions_of_offsets
from deformable_detr.structures import LevelShapes, Pyramid


@dataclass(frozen=True)
class Sampling:
    """What queries read by deformable attention: `weights` sum to 1 over the levels and points of a head."""

    locations: Float[Tensor, "Q M L P 2"]   # x and y in [0, 1] of the unpadded image, float64; a point may lie outside
    weights: Float[Tensor, "Q M L P"]


def is_deformable(call: Call) -> bool:
    """Whether it samples points, instead of comparing each query with every key."""
    return isinstance(call.attention, DeformableAttention)


@torch.no_grad()
def sampling(call: Call, rows: Int64[Tensor, "rows"] | slice = slice(None)) -> Sampling:
    """The points of some queries of a deformable attention."""
    attention: Any = call.attention
    place, memory = call.inputs["place"], call.inputs["memory"]
    query = (call.inputs["content"] + place.position)[:1, rows]
    with call.computing():
        offsets, logits = attention.sampling(query)
    offsets = offsets.unflatten(-1, (attention.num_levels, attention.num_points, 2))
    positions = positions_of_offsets(place.reference[:1, rows], offsets, memory.level_shapes)[0]
    extents = torch.tensor(valid_shapes(memory), dtype=positions.dtype, device=positions.device).flip(-1)
    locations = (positions + 0.5) / extents[:, None]
    return Sampling(locations.cpu(), attention_weights(logits, len(memory.level_shapes))[0].float().cpu())


@torch.no_grad()
def values(call: Call) -> list[Float[Tensor, "M _ _ D"]]:
    """The maps that a deformable attention samples, a list over levels; zero at padding."""
    attention: Any = call.attention
    memory = call.inputs["memory"]
    with call.computing():
        value = attention.values(memory)[0]
    maps = value.float().cpu().split([height * width for height, width in memory.level_shapes])
    return [tokens.unflatten(0, shape).permute(2, 0, 1, 3)
            for tokens, shape in zip(maps, memory.level_shapes, strict=True)]


@torch.no_grad()
def dense_attention(call: Call, rows: Int64[Tensor, "rows"] | slice = slice(None)) -> Float[Tensor, "Q M H W"]:
    """How much some queries attend to each token of the map, in each head; 0 at padding."""
    memory = call.inputs["memory"]
    return _weights(call, rows, memory.blocked).unflatten(-1, memory.level_shapes[0])


def self_attention(call: Call) -> Float[Tensor, "Q Q"]:
    """How much each query of the decoder attends to each other one, the mean over heads."""
    with torch.no_grad():
        return _weights(call, slice(None), call.inputs.get("blocked")).mean(dim=1)


def _weights(call: Call, rows: Int64[Tensor, "rows"] | slice, blocked: Tensor | None) -> Float[Tensor, "Q M N"]:
    attention: Any = call.attention
    inputs = {name: value for name, value in call.inputs.items() if name != "blocked"}
    with call.computing():
        compared: Compared = attention.compared(**inputs)
    weights = dense_weights(compared.query[:1, rows].float(), compared.key[:1].float(), attention.num_heads, blocked)
    return weights[0].transpose(0, 1).cpu()


def valid_shapes(memory: Pyramid) -> LevelShapes:
    """(height, width) of the part of each level that is no padding."""
    return tuple((round(height * ratio_y), round(width * ratio_x)) for (height, width), (ratio_x, ratio_y)
                 in zip(memory.level_shapes, memory.valid_ratios[0].tolist(), strict=True))
