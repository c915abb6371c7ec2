"""Deformable attention: one function, several ways to compute it.

`ms_deform_attn` is equation 3 of Deformable DETR (arXiv 2010.04159) without its linear layers.
`fused_ms_deform_attn` takes the outputs of those layers and computes locations and weights as well.
`use_backend` chooses how they are computed. README.md in this folder has the mathematics.
"""

from collections.abc import Sequence

from torch import Tensor

from deformable_detr.ops import library
from deformable_detr.ops.backend import available_backends, choose_backend, use_backend
from deformable_detr.ops.checks import check_fused_inputs, check_inputs
from deformable_detr.ops.gather import gather_ms_deform_attn, pixels_of_locations, pixels_of_offsets
from deformable_detr.ops.reference import (
    attention_weights,
    positions_of_locations,
    positions_of_offsets,
    reference_ms_deform_attn,
)

__all__ = ["available_backends", "fused_ms_deform_attn", "ms_deform_attn", "use_backend"]


def ms_deform_attn(
    value: Tensor, level_shapes: Sequence[Sequence[int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """For each query and head, the weighted sum of bilinear samples of `value` at P points on each level.

    Pixels outside the map count as zeros. A location that is not finite contributes 0 and gets a zero
    gradient. Half precision is computed in float32.

    Args:
        value: (B, N, M, D), the tokens of all levels in sequence, each level row by row.
        level_shapes: L pairs (height, width) of Python ints whose products sum to N.
        locations: (B, Q, M, L, P, 2), x then y: 0 is the left or upper edge of the map, 1 the right or lower.
        weights: (B, Q, M, L, P), already normalised. Float32 and half precision may be mixed, preferably with
            locations in float32; float64 only with float64.

    Returns:
        (B, Q, M * D) in the dtype of `value`, the heads side by side.

    Raises:
        ValueError: an argument is no tensor, a shape, dtype or device does not fit, or the chosen backend cannot
            compute this.
    """
    shapes = check_inputs(value, level_shapes, locations, weights)
    backend = choose_backend(value, locations, weights)
    if backend == "gather":
        return gather_ms_deform_attn(value, shapes, *pixels_of_locations(locations, shapes), weights)
    if backend == "reference":
        return reference_ms_deform_attn(value, shapes, positions_of_locations(locations, shapes), weights)
    return library.ms_deform_attn(value, _flat(shapes), locations, weights)


def fused_ms_deform_attn(
    value: Tensor,
    level_shapes: Sequence[Sequence[int]],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    """Deformable attention from the outputs of the linear layers: offsets around a reference, and logits.

    Locations and the softmax are computed in float32 at least, whatever the dtypes and autocast.

    Args:
        value: (B, N, M, D), as for `ms_deform_attn`.
        level_shapes: L pairs (height, width) of Python ints whose products sum to N.
        reference: (B, Q, L, 2), points x, y in [0, 1]; or (B, Q, L, 4), boxes x, y, width, height, by centre.
        offsets: (B, Q, M, L, P, 2), or its last three axes in one as a linear layer makes them: (B, Q, M, L * P * 2);
            x then y; in pixels of the level from a point, or in 1 / P of half the width and height from a box.
        logits: (B, Q, M, L * P), before the softmax over all levels and points of a head.

    Returns:
        (B, Q, M * D) in the dtype of `value`.

    Raises:
        ValueError: an argument is no tensor, a shape, dtype or device does not fit, or the chosen backend cannot
            compute this.
    """
    shapes = check_fused_inputs(value, level_shapes, reference, offsets, logits)
    backend = choose_backend(value, reference, offsets, logits)
    if backend == "gather":
        x, y = pixels_of_offsets(reference, offsets if offsets.dim() == 4 else offsets.flatten(3), shapes)
        return gather_ms_deform_attn(value, shapes, x, y, attention_weights(logits, len(shapes)))
    if offsets.dim() == 4:
        offsets = offsets.unflatten(3, (len(shapes), -1, 2))
    if backend == "reference":
        positions = positions_of_offsets(reference, offsets, shapes)
        return reference_ms_deform_attn(value, shapes, positions, attention_weights(logits, len(shapes)))
    output, _ = library.fused_ms_deform_attn(value, _flat(shapes), reference, offsets, logits)
    return output


def _flat(shapes: tuple[tuple[int, int], ...]) -> list[int]:
    return [size for shape in shapes for size in shape]
