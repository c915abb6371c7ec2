"""The runtime of exported files: ONNX Runtime or OpenVINO, through the same door as PyTorch."""

from pathlib import Path

import numpy as np
import torch

from deformable_detr.export.graph import INPUTS, RAW_OUTPUTS
from deformable_detr.export.metadata import info_for_runtime, read_metadata
from deformable_detr.export.sessions import Arrays, ExportError, open_session
from deformable_detr.structures import ImageBatch, Predictions
from deformable_detr.text import quoted


class ExportedRuntime:
    """A file that `ddetr export` wrote. `info` has the preprocessing that is left to do, `config` describes the model.

    `precision` is "fp32" or "auto", for OpenVINO also "bf16" or "fp16"; an ONNX file is run in that of its export.
    Raises ExportError for a file that cannot be loaded or was not written by this package.
    """

    def __init__(self, path: str | Path, device: str = "auto", precision: str = "fp32") -> None:
        self.path = Path(path)
        self._session = open_session(self.path, device, precision)
        try:
            self.config, info, self.form = read_metadata(self._session.metadata)
        except ValueError as error:
            raise ExportError(f"{path}: {error}") from None
        self._check_declared()
        self.info = info_for_runtime(info, self.form)
        self.device = torch.device("cpu")       # where batches are handed over
        self.precision = precision if self.form.precision == "fp32" else self.form.precision

    def run(self, batch: ImageBatch) -> Predictions:
        """The predictions of the last decoder layer, as many images at a time as the file takes."""
        images, sizes = self._inputs(batch)
        step = self.form.batch or len(images)
        parts = [self._predict(images[start:start + step], sizes[start:start + step], step)
                 for start in range(0, len(images), step)]
        logits, boxes = (torch.from_numpy(np.concatenate(each)) for each in zip(*parts, strict=True))
        return Predictions(logits[None], boxes[None], no_object=logits.shape[-1] > self.config.num_classes)

    def _check_declared(self) -> None:
        """What the file declares has to fit its metadata, so that it is refused before the first image."""
        form, declared = self.form, self._session.shapes
        shapes = (form.batch, 3, *(form.size or (None, None))), (form.batch, 2)
        for name, expected in zip(INPUTS, shapes, strict=True):
            if declared.get(name) != expected:
                raise ExportError(f"{self.path}: input {name!r}: expected shape {expected}, as its metadata says, "
                                  f"got {quoted(declared.get(name))}")
        for name, lasts in self._last_axes().items():
            shape = declared.get(name, ())
            if len(shape) != 3 or shape[2] not in (None, *lasts):
                raise self._wrong_output(name, shape)

    def _last_axes(self) -> dict[str, tuple[int, ...]]:
        """What the last axis of each raw output may be; DETR has a class more, for no object."""
        classes = self.config.num_classes
        return dict(zip(RAW_OUTPUTS, ((classes, classes + 1), (4,)), strict=True))

    def _wrong_output(self, name: str, shape: tuple[int | None, ...] | None) -> ExportError:
        last = self._last_axes()[name][0]
        return ExportError(f"{self.path}: output {name!r}: expected shape (batch, queries, {last}), as its metadata "
                           f"says, got {quoted(shape)}")

    def _inputs(self, batch: ImageBatch) -> tuple[np.ndarray, np.ndarray]:
        """Pixels as the file wants them, padded to its size if that is fixed."""
        height, width = self.form.size or batch.images.shape[2:]
        padded = torch.zeros(len(batch.images), 3, height, width)
        padded[:, :, :batch.images.shape[2], :batch.images.shape[3]] = batch.images
        pixels = padded if self.form.raw else padded.round().to(torch.uint8)
        return pixels.numpy(), np.array(batch.sizes, np.int64)

    def _predict(self, images: np.ndarray, sizes: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Logits (B, Q, K) and boxes (B, Q, 4). A batch that is too small is filled with its last image."""
        missing = step - len(images)
        images, sizes = (np.concatenate([values, np.repeat(values[-1:], missing, 0)]) if missing else values
                         for values in (images, sizes))
        found = self._session.run(images, sizes)
        logits, boxes = self._checked(found, len(images))
        return logits[:len(images) - missing], boxes[:len(images) - missing]

    def _checked(self, found: Arrays, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """The raw outputs, of shapes that fit the metadata: what a file says about itself is not trusted."""
        for name, lasts in self._last_axes().items():
            shape = found[name].shape if name in found else None
            if shape is None or len(shape) != 3 or shape[0] != batch or shape[2] not in lasts:
                raise self._wrong_output(name, shape)
        logits, boxes = (found[name].astype(np.float32) for name in RAW_OUTPUTS)
        if logits.shape[1] != boxes.shape[1]:
            raise ExportError(f"{self.path}: output {RAW_OUTPUTS[1]!r}: expected as many queries as in "
                              f"{RAW_OUTPUTS[0]!r}, {logits.shape[1]}, got {boxes.shape[1]}")
        return logits, boxes
