"""Arrays and images as text for JSON: bytes in base64, rounded where exact numbers are not needed."""

import base64
import io
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor

Packed = dict[str, Any]     # dtype, shape, scale, offset, data; a value is raw * scale + offset

QUALITIES = (88, 75, 60, 40, 20)    # of a JPEG, the best first


def pack(array: Shaped[np.ndarray, "..."], dtype: str = "float32") -> Packed:
    """The same numbers as `dtype`, little-endian: "float32", or an integer type that they fit."""
    return _packed(array.astype(dtype), 1.0, 0.0)


def pack_floats(tensor: Num[Tensor, "..."]) -> Packed:
    """The same numbers as float32."""
    return pack(tensor.numpy())


def pack_rounded(array: Float[np.ndarray, "..."], dtype: str) -> Packed:
    """Numbers rounded to equal steps between the least and the greatest: of "uint8" 255, of "uint16" 65,535."""
    steps = np.iinfo(dtype).max
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    scale = (high - low) / steps or 1.0
    return _packed(np.rint((array.astype(np.float64) - low) / scale).astype(dtype), scale, low)


def pack_maps(maps: Float[Tensor, "rows M H W"]) -> dict[str, Packed]:
    """Maps of weights as bytes, shares of each map's greatest weight, and these `peaks`."""
    peaks = maps.flatten(2).amax(-1)
    shares = maps / peaks[..., None, None].clamp(min=torch.finfo(torch.float32).tiny)
    return {"attention": _packed((shares * 255).round().to(torch.uint8).numpy(), 1 / 255, 0.0),
            "peaks": pack_floats(peaks)}


def _packed(array: Shaped[np.ndarray, "..."], scale: float, offset: float) -> Packed:
    little = array.astype(array.dtype.newbyteorder("<"))
    return {"dtype": array.dtype.name, "shape": list(array.shape), "scale": scale, "offset": offset,
            "data": base64.b64encode(little.tobytes()).decode()}


def image_address(image: PIL.Image.Image, most_bytes: int) -> str:
    """A JPEG as a `data:` address, of the best quality that is not too large."""
    content = b""
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        content = file.getvalue()
        if len(content) <= most_bytes:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
