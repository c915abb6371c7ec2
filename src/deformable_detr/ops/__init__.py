"""Deformable attention: one function, several ways to compute it.

`ms_deform_attn` is equation 3 of Deformable DETR (arXiv 2010.04159) without its linear layers.
`fused_ms_deform_attn` takes what those layers give, before it is made into locations and weights.
`use_backend` chooses how they are computed. The mathematics is in README.md beside this file.
"""

from collections.abc import Sequence

from torch import Tensor

from deformable_detr.ops import library
from deformable_detr.ops.backend import available_backends, choose_backend, use_backend
from deformable_detr.ops.checks import check_fused_inputs, check_inputs
from deformable_detr.ops.reference import attention_weights, reference_ms_deform_attn, sampling_locations

__all__ = ["available_backends", "fused_ms_deform_attn", "ms_deform_attn", "use_backend"]


def ms_deform_attn(
    value: Tensor, level_shapes: Sequence[Sequence[int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """For each query and head, the weighted sum of bilinear samples of `value` at P points on each level.

    Pixels outside the map count as zeros. A location that is not finite contributes 0 and gets a zero
    gradient. Half precision is computed in float32.

    Args:
        value: (B, N, M, D), the tokens of all levels one after the other, each level row by row.
        level_shapes: L pairs (height, width) of Python ints whose products sum to N.
        locations: (B, Q, M, L, P, 2), x then y: 0 is the left or upper edge of the map, 1 the right or lower.
        weights: (B, Q, M, L, P), already normalised. Float32 and half precision may be mixed, and best are
            locations in float32; float64 goes only with float64.

    Returns:
        (B, Q, M * D) in the dtype of `value`, the heads side by side.

    Raises:
        ValueError: a shape, dtype or device does not fit, or the chosen backend cannot run on this device.
    """
    shapes = check_inputs(value, level_shapes, locations, weights)
    if choose_backend(value.device.type, value.dtype) == "reference":
        return reference_ms_deform_attn(value, shapes, locations, weights)
    return library.ms_deform_attn(value, _flat(shapes), locations, weights)


def fused_ms_deform_attn(
    value: Tensor,
    level_shapes: Sequence[Sequence[int]],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    """Deformable attention from what the linear layers give: offsets around a reference, and logits.

    Locations and the softmax are computed in float32 at least, whatever the dtypes and autocast.

    Args:
        value: (B, N, M, D), as for `ms_deform_attn`.
        level_shapes: L pairs (height, width) of Python ints whose products sum to N.
        reference: (B, Q, L, 2), points x, y in [0, 1]; or (B, Q, L, 4), boxes x, y, width, height, by centre.
        offsets: (B, Q, M, L, P, 2) in x, y; in pixels of the level beside a point, and in 1 / P of half the
            width and height beside a box.
        logits: (B, Q, M, L * P), before the softmax over all levels and points of a head.

    Returns:
        (B, Q, M * D) in the dtype of `value`.

    Raises:
        ValueError: a shape, dtype or device does not fit, or the chosen backend cannot run on this device.
    """
    shapes = check_fused_inputs(value, level_shapes, reference, offsets, logits)
    if choose_backend(value.device.type, value.dtype) == "reference":
        locations = sampling_locations(reference, offsets, shapes)
        return reference_ms_deform_attn(value, shapes, locations, attention_weights(logits, len(shapes)))
    output, _ = library.fused_ms_deform_attn(value, _flat(shapes), reference, offsets, logits)
    return output


def _flat(shapes: tuple[tuple[int, int], ...]) -> list[int]:
    return [size for shape in shapes for size in shape]
