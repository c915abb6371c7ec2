"""Videos made on the spot, and a runtime that finds what is in them by its colour."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from deformable_detr.structures import ImageBatch, Predictions

RATE = 25
SIDE = 8        # pixels of a square
RED, GREEN = (255, 0, 0), (0, 255, 0)


def save_video(path: Path, frames: Iterable[np.ndarray], *, codec: str = "libx264", size: tuple[int, int] = (48, 64),
               times: Callable[[int], float] = lambda index: index / RATE, ticks: int = RATE,
               rotation: int = 0, options: dict[str, str] | None = None) -> Path:
    """Arrays (height, width, 3) of one size; `times` are the seconds of each frame, in steps of 1 / `ticks`."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, ticks)
        if rotation:
            stream.set_display_rotation(rotation)
        container.start_encoding()
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = round(times(index) * ticks), Fraction(1, ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbered(count: int, size: tuple[int, int] = (48, 64)) -> Iterable[np.ndarray]:
    """Frames whose grey is twice their number, modulo 100."""
    return (np.full((*size, 3), 20 + 2 * (index % 100), dtype=np.uint8) for index in range(count))


def number_of(pixels: np.ndarray) -> int:
    """What `numbered` has written."""
    return round((float(np.median(pixels)) - 20) / 2)


def with_squares(size: tuple[int, int], squares: Iterable[tuple[int, int, tuple[int, int, int]]]) -> np.ndarray:
    """A dark frame with squares at (x, y), of a colour."""
    pixels = np.full((*size, 3), 30, dtype=np.uint8)
    for x, y, colour in squares:
        pixels[y:y + SIDE, x:x + SIDE] = colour
    return pixels


class Stub:
    """A runtime that finds the red and the green square of each image, as classes 0 and 1, for three classes."""

    device = torch.device("cpu")
    precision = "fp32"

    def __init__(self, mean: Iterable[float], std: Iterable[float]) -> None:
        self._mean = torch.tensor(list(mean)).view(3, 1, 1)
        self._std = torch.tensor(list(std)).view(3, 1, 1)

    def run(self, batch: ImageBatch) -> Predictions:
        found = [self._find(image * self._std + self._mean) for image in batch.images]
        scores, boxes = (torch.stack(part) for part in zip(*found, strict=True))
        return Predictions(torch.logit(scores, eps=1e-6)[None], boxes[None])

    def _find(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores, boxes = torch.zeros(2, 3), torch.full((2, 4), 0.5)
        height, width = image.shape[1:]
        for label, (own, other) in enumerate([(0, 1), (1, 0)]):
            rows, columns = torch.nonzero(image[own] - image[other] > 0.3, as_tuple=True)
            if len(rows):
                x0, x1, y0, y1 = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
                scores[label, label] = 0.9
                boxes[label] = torch.stack([(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width,
                                            (y1 - y0) / height])
        return scores, boxes
