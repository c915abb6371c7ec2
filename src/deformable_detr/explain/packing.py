"""Arrays as text for JSON: their bytes in base64, small integers where exact numbers are not needed."""

import base64
from typing import Any

import numpy as np
from jaxtyping import Shaped

Packed = dict[str, Any]     # dtype, shape, scale, offset, data; a value is raw * scale + offset


def pack(array: Shaped[np.ndarray, "..."], dtype: str = "float32") -> Packed:
    """The same numbers as `dtype`, little-endian: "float32", or an integer type that they fit."""
    return _packed(array.astype(dtype), 1.0, 0.0)


def pack_rounded(array: Shaped[np.ndarray, "..."], dtype: str) -> Packed:
    """The numbers rounded to equal steps between the least and the greatest: of "uint8" 255, of "uint16" 65,535."""
    steps = np.iinfo(dtype).max
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    scale = (high - low) / steps or 1.0
    return _packed(np.rint((array.astype(np.float64) - low) / scale).astype(dtype), scale, low)


def _packed(array: Shaped[np.ndarray, "..."], scale: float, offset: float) -> Packed:
    little = array.astype(array.dtype.newbyteorder("<"))
    return {"dtype": array.dtype.name, "shape": list(array.shape), "scale": scale, "offset": offset,
            "data": base64.b64encode(little.tobytes()).decode()}
