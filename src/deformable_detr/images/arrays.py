"""Arrays and tensors as RGB bytes."""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from deformable_detr.images.scaling import GreyRange, scaled_to_bytes, warn_if_nearly_black

if TYPE_CHECKING:
    import torch

CHANNELS = (1, 3, 4)   # grey, RGB, RGB and alpha


def is_tensor(source: Any) -> bool:
    """Whether it is a torch.Tensor, without importing torch: whoever made a tensor has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def rgb_of_array(array: np.ndarray, grey_range: GreyRange | None) -> UInt8[np.ndarray, "H W 3"]:
    """An array (H, W) or (H, W, channels) copied to RGB. Raises ValueError for other shapes, types and values."""
    array = np.asarray(array)
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in CHANNELS)
    if not is_image or array.size == 0 or not _has_scale(array.dtype, grey_range):
        hint = "; for channels first use transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in (1, 3) else ""
        raise ValueError(f"expected an array (height, width) or (height, width, 1, 3 or 4) of uint8, uint16 or "
                         f"floats in 0..1, got {array.dtype} {array.shape}{hint}")
    colours = array.reshape(*array.shape[:2], -1)[..., :3]   # without alpha
    if array.dtype != np.uint8:
        colours = scaled_to_bytes(colours, grey_range)
        if grey_range is None:
            warn_if_nearly_black(colours, "image")
    return np.array(np.broadcast_to(colours, (*colours.shape[:2], 3)), order="C")


def rgb_of_tensor(tensor: "torch.Tensor", grey_range: GreyRange | None) -> UInt8[np.ndarray, "H W 3"]:
    """A tensor (H, W) or (channels, H, W) as RGB. Raises what torch raises for a tensor without values, too."""
    is_image = tensor.ndim == 2 or (tensor.ndim == 3 and tensor.shape[0] in CHANNELS)
    kind = str(tensor.dtype).removeprefix("torch.")
    if not is_image or tensor.numel() == 0 or not (tensor.is_floating_point() or kind in ("uint8", "uint16")):
        raise ValueError(f"expected a tensor (3, height, width) or (1, height, width) of uint8, uint16 or floats in "
                         f"0..1, got {tensor.dtype} {tuple(tensor.shape)}")
    tensor = tensor.detach().cpu()
    if kind == "bfloat16":   # unknown to NumPy
        tensor = tensor.float()
    return rgb_of_array((tensor if tensor.ndim == 2 else tensor.permute(1, 2, 0)).numpy(), grey_range)


def _has_scale(dtype: np.dtype, grey_range: GreyRange | None) -> bool:
    """Whether it is clear which values are black and white."""
    return dtype.kind == "f" or (dtype.kind == "u" and dtype.itemsize <= 2) or (
        dtype.kind in "iu" and grey_range is not None)
