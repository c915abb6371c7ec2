"""The definition of the op in plain PyTorch: any device, differentiable by autograd, exportable."""

import torch
import torch.nn.functional as F
from torch import Tensor


def reference_ms_deform_attn(
    value: Tensor, level_shapes: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
) -> Tensor:
    """What `ms_deform_attn` means (Deformable DETR, arXiv 2010.04159, eq. 3), level by level.

    Args:
        value: (B, N, M, D).
        level_shapes: L pairs (height, width).
        locations: (B, Q, M, L, P, 2), x and y in [0, 1].
        weights: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D) in the dtype of `value`.
    """
    B, _, M, D = value.shape
    maps = at_least_float32(value).split([height * width for height, width in level_shapes], dim=1)
    # A sample more than half a pixel outside [0, 1] is zero. So it is at -1 and 2, where the numbers of the
    # pixels stay small. grid_sample would make NaN of a NaN; at -1 it reads zeros and passes no gradient.
    locations = at_least_float32(locations).nan_to_num(nan=-1.0).clamp(-1.0, 2.0)
    weights = at_least_float32(weights)

    samples = []
    for level, (height, width) in enumerate(level_shapes):
        feature_map = maps[level].permute(0, 2, 3, 1).reshape(B * M, D, height, width)
        points = locations[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (B * M, Q, P, 2)
        samples.append(F.grid_sample(feature_map, 2 * points - 1, align_corners=False))  # (B * M, D, Q, P)
    weights = weights.transpose(1, 2).flatten(0, 1).flatten(2)  # (B * M, Q, L * P)
    output = (torch.cat(samples, dim=-1) * weights[:, None]).sum(dim=-1)
    return output.unflatten(0, (B, M)).permute(0, 3, 1, 2).flatten(2).to(value.dtype)


def sampling_locations(
    reference: Tensor, offsets: Tensor, level_shapes: tuple[tuple[int, int], ...]
) -> Tensor:
    """Where the points lie: (B, Q, M, L, P, 2), x and y in [0, 1], in float32 at least.

    Args:
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes.
        offsets: (B, Q, M, L, P, 2): pixels of the level beside points, 1 / P of half a box beside boxes.
        level_shapes: L pairs (height, width).
    """
    reference = at_least_float32(reference)[:, :, None, :, None]  # (B, Q, 1, L, 1, 2 or 4)
    offsets = at_least_float32(offsets)
    if reference.shape[-1] == 4:
        P = offsets.shape[4]
        return reference[..., :2] + offsets / P * reference[..., 2:] * 0.5
    # Filled on the device: a copy from the host would make a GPU wait.
    widths = torch.cat([offsets.new_full((1,), width) for _, width in level_shapes])
    heights = torch.cat([offsets.new_full((1,), height) for height, _ in level_shapes])
    return reference + offsets / torch.stack((widths, heights), dim=-1)[:, None]


def attention_weights(logits: Tensor, num_levels: int) -> Tensor:
    """Softmax over all levels and points of a head: (B, Q, M, L * P) to (B, Q, M, L, P), float32 at least."""
    return at_least_float32(logits).softmax(dim=-1).unflatten(-1, (num_levels, -1))


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32, anything wider as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
