"""Checks of the op's arguments: of types, shapes, dtypes and devices only, so that nothing waits for a GPU."""

from collections.abc import Sequence

import torch
from torch import Tensor

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_inputs(
    value: Tensor, level_shapes: Sequence[Sequence[int]], locations: Tensor, weights: Tensor
) -> tuple[tuple[int, int], ...]:
    """Raise ValueError where the arguments of `ms_deform_attn` do not fit; return the level shapes."""
    _check_tensors(value=value, locations=locations, weights=weights)
    shapes = _check_levels(value, level_shapes)
    B, _, M, _ = value.shape
    L = len(shapes)
    _check_rank("locations", locations, "(B, Q, M, L, P, 2)")
    Q, P = locations.shape[1], locations.shape[4]
    if P == 0:
        raise ValueError(
            f"locations must have at least one point per level, got shape {tuple(locations.shape)}"
        )
    _check_shape("locations", locations, (B, Q, M, L, P, 2), "(B, Q, M, L, P, 2)")
    _check_shape("weights", weights, (B, Q, M, L, P), "(B, Q, M, L, P)")
    _check_dtypes_and_devices(value, locations=locations, weights=weights)
    return shapes


def check_fused_inputs(
    value: Tensor, level_shapes: Sequence[Sequence[int]], reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[tuple[int, int], ...]:
    """Raise ValueError where the arguments of `fused_ms_deform_attn` do not fit; return the level shapes."""
    _check_tensors(value=value, reference=reference, offsets=offsets, logits=logits)
    shapes = _check_levels(value, level_shapes)
    B, _, M, _ = value.shape
    L = len(shapes)
    if offsets.dim() == 4:   # as a linear layer makes them
        Q, P = offsets.shape[1], offsets.shape[3] // (2 * L)
        expected, legend = (B, Q, M, L * P * 2), "(B, Q, M, L * P * 2)"
    else:
        _check_rank("offsets", offsets, "(B, Q, M, L, P, 2)")
        Q, P = offsets.shape[1], offsets.shape[4]
        expected, legend = (B, Q, M, L, P, 2), "(B, Q, M, L, P, 2)"
    if P == 0:
        raise ValueError(f"offsets must have at least one point per level, got shape {tuple(offsets.shape)}")
    _check_shape("offsets", offsets, expected, legend)
    _check_rank("reference", reference, "(B, Q, L, 2)")
    coordinates = 4 if reference.shape[3] == 4 else 2
    _check_shape("reference", reference, (B, Q, L, coordinates), "(B, Q, L, 2) or (B, Q, L, 4)")
    _check_shape("logits", logits, (B, Q, M, L * P), "(B, Q, M, L * P)")
    _check_dtypes_and_devices(value, reference=reference, offsets=offsets, logits=logits)
    return shapes


def _check_tensors(**arguments: object) -> None:
    for name, argument in arguments.items():
        if not isinstance(argument, Tensor):
            raise ValueError(f"{name} must be a torch.Tensor, got {type(argument).__name__}")
        if argument.layout != torch.strided:
            raise ValueError(f"{name} must be a dense tensor, got layout {argument.layout}")


def _check_levels(value: Tensor, level_shapes: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    _check_rank("value", value, "(B, N, M, D)")
    _, N, M, D = value.shape
    if M == 0 or D == 0:
        raise ValueError(f"value must have at least one head and one channel, got shape {tuple(value.shape)}")
    expected = "level_shapes must be pairs (height, width) of Python ints, at least 1, one pair per level"
    if isinstance(level_shapes, Tensor):
        raise ValueError(f"{expected}; got a tensor: pass level_shapes.tolist()")
    if not isinstance(level_shapes, Sequence) or not level_shapes or not all(map(_is_level_shape, level_shapes)):
        raise ValueError(f"{expected}; got {level_shapes!r}")
    shapes = tuple((height, width) for height, width in level_shapes)
    tokens = sum(height * width for height, width in shapes)
    if tokens != N:
        raise ValueError(f"level_shapes {shapes} make {tokens} tokens, but value has N = {N}")
    return shapes


def _is_level_shape(shape: object) -> bool:
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        return False
    return all(isinstance(size, int | torch.SymInt) and size >= 1 for size in shape)


def _check_rank(name: str, tensor: Tensor, legend: str) -> None:
    if tensor.dim() != legend.count(",") + 1:
        raise ValueError(f"{name} must have shape {legend}, got {tuple(tensor.shape)}")


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...], legend: str) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must have shape {legend} = {expected}, got {tuple(tensor.shape)}")


def _check_dtypes_and_devices(value: Tensor, **others: Tensor) -> None:
    if value.dtype not in _DTYPES:
        raise ValueError(f"value must be float16, bfloat16, float32 or float64, got {value.dtype}")
    for name, tensor in others.items():
        is_double = tensor.dtype == torch.float64
        if tensor.dtype not in _DTYPES or is_double != (value.dtype == torch.float64):
            expected = "float64" if value.dtype == torch.float64 else "float32, float16 or bfloat16"
            raise ValueError(f"{name} must be {expected} with a value of {value.dtype}, got {tensor.dtype}")
        if tensor.device != value.device:
            raise ValueError(f"{name} must be on {value.device} as value is, got {tensor.device}")
