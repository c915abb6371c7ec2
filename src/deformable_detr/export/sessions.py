"""An exported file in its runtime: arrays in, arrays by their names out. The only place that knows a runtime."""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch

from deformable_detr.export.graph import INPUTS
from deformable_detr.export.metadata import ENTRY, WEIGHTS_ENTRY
from deformable_detr.text import quoted

EXTRA = "expected the extra `export`: pip install 'deformable-detr[export]'"
SUFFIXES: dict[str, "Target"] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}
OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
DIGEST = re.compile(rb"<" + WEIGHTS_ENTRY.encode() + rb' value="([0-9a-f]{64})"')
ONNX_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

Target = Literal["onnx", "openvino", "torch"]
Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int | None, ...]]       # None where an axis is free


class ExportError(ValueError):
    """A file that cannot be exported, loaded or trusted; one line, which names the file."""


@runtime_checkable
class Session(Protocol):
    """A loaded file."""

    def run(self, images: np.ndarray, sizes: np.ndarray) -> Arrays:
        """The outputs for images (B, 3, H, W) and their (height, width) before padding, (B, 2)."""
        ...

    @property
    def metadata(self) -> str | None:
        """The file's own entry, if it has one."""
        ...


@runtime_checkable
class OpenedFile(Session, Protocol):
    """The file of somebody."""

    @property
    def shapes(self) -> Shapes:
        """What it declares for each of its inputs and outputs."""
        ...


class OnnxSession:
    """ONNX Runtime, on `device`: "auto", "cpu", "cuda", or one of its execution providers by name."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        onnxruntime = import_runtime("onnxruntime")
        provider = self._provider(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3      # errors, which are raised anyway
        with _one_error(path), tempfile.TemporaryDirectory(prefix="deformable-detr-") as nothing:
            # From memory, beside an empty folder: a file of a stranger must not name others that hold its weights.
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", nothing)
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=[provider])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._path = path

    @staticmethod
    def _provider(device: str, available: list[str]) -> str:
        if device == "auto":
            device = "cuda" if ONNX_PROVIDERS["cuda"] in available and torch.cuda.is_available() else "cpu"
        provider = ONNX_PROVIDERS.get(device, device)
        if provider not in available:
            raise ValueError(f"device: expected auto, cpu or one of {', '.join(available)}, got {quoted(device)}")
        return provider

    @property
    def metadata(self) -> str | None:
        return self._session.get_modelmeta().custom_metadata_map.get(ENTRY)

    @property
    def shapes(self) -> Shapes:
        return {value.name: tuple(axis if isinstance(axis, int) else None for axis in value.shape)
                for value in (*self._session.get_inputs(), *self._session.get_outputs())}

    def run(self, images: np.ndarray, sizes: np.ndarray) -> Arrays:
        inputs = dict(zip(INPUTS, (images, sizes), strict=True))
        with _one_error(self._path):
            return dict(zip(self._outputs, self._session.run(None, inputs), strict=True))


class OpenvinoSession:
    """OpenVINO, on `device`: "auto" (its CPU), "cpu", or one of its devices by name, and in `precision`.

    Left to itself OpenVINO computes in half precision where the processor is faster in it; "auto" allows that.
    """

    def __init__(self, path: Path, device: str = "auto", precision: str = "fp32") -> None:
        openvino = import_runtime("openvino")
        core = openvino.Core()
        chosen = "CPU" if device in ("auto", "cpu") else device
        if chosen.split(".")[0] not in {name.split(".")[0] for name in core.available_devices}:
            raise ValueError(f"device: expected auto or one of {', '.join(core.available_devices)}, "
                             f"got {quoted(device)}")
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if precision != "auto":
            settings["INFERENCE_PRECISION_HINT"] = OPENVINO_PRECISIONS[precision]
        if chosen == "CPU":
            settings["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
        _check_pair(path)
        with _one_error(path):
            self._path, model = path, core.read_model(path)
            self._compiled = core.compile_model(model, chosen, settings)
            self.metadata = model.get_rt_info(ENTRY).astype(str) if model.has_rt_info(ENTRY) else None
            self.shapes: Shapes = {port.get_any_name(): self._axes(port.get_partial_shape())
                                   for port in (*model.inputs, *model.outputs)}
        self._one_at_a_time = Lock()        # calls from several threads would share the arrays inside

    @staticmethod
    def _axes(shape: Any) -> tuple[int | None, ...]:
        return () if shape.rank.is_dynamic else tuple(
            None if axis.is_dynamic else axis.get_length() for axis in shape)

    def run(self, images: np.ndarray, sizes: np.ndarray) -> Arrays:
        with _one_error(self._path), self._one_at_a_time:
            found = self._compiled(dict(zip(INPUTS, (images, sizes), strict=True)))
            return {port.get_any_name(): values for port, values in found.items()}


class TorchSession:
    """A program of torch.export, for the proof alone: its archive may hold pickles, so nobody else's is loaded."""

    def __init__(self, path: Path, outputs: list[str]) -> None:
        self._extra = {ENTRY: ""}
        self._module: Any = torch.export.load(path, extra_files=self._extra).module()
        self._outputs = outputs

    @property
    def metadata(self) -> str | None:
        return self._extra[ENTRY] or None

    @torch.no_grad()
    def run(self, images: np.ndarray, sizes: np.ndarray) -> Arrays:
        found = self._module(torch.from_numpy(images), torch.from_numpy(sizes))
        return {name: values.numpy() for name, values in zip(self._outputs, found, strict=True)}


def open_session(path: Path, device: str = "auto", precision: str = "fp32") -> OpenedFile:
    """The file of somebody, by its suffix. Raises ExportError, or ValueError for the device and the precision."""
    if not path.is_file():
        raise ExportError(f"{path}: {'expected a file, got a folder' if path.is_dir() else 'no such file'}")
    kind = SUFFIXES.get(path.suffix.lower())
    if kind == "openvino":
        return OpenvinoSession(path, device, precision)
    if kind == "onnx":
        if precision not in ("fp32", "auto"):
            raise ValueError(f"precision: expected fp32 or auto, since an ONNX file is run in the precision it was "
                             f"exported in, got {quoted(precision)}")
        return OnnxSession(path, device)
    raise ExportError(f"{path}: expected a file that ends in .onnx or .xml")


def import_runtime(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise ExportError(f"{name} is not installed; {EXTRA}") from None


def digest_of(path: Path) -> str:
    """SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_weights(xml: bytes) -> str | None:
    """That of the weights which a file of OpenVINO was exported with; None if it does not say."""
    found = DIGEST.search(xml)
    return None if found is None else found[1].decode()


def _check_pair(path: Path) -> None:
    """Raise ExportError for other than XML, and for the weights of another export, which may fit the same layers."""
    xml, weights = path.read_bytes(), path.with_suffix(".bin")
    if not xml[:64].lstrip().startswith(b"<"):      # OpenVINO would read it as any other kind that it knows
        raise ExportError(f"{path}: expected XML, as OpenVINO writes it")
    digest = digest_of_weights(xml)
    if digest is not None and weights.is_file() and digest != digest_of(weights):
        raise ExportError(f"{weights}: expected the weights that {path.name} was exported with, got others")


@contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """ExportError for whatever a runtime raises: the exceptions of ONNX Runtime have no base of their own."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ExportError(f"{path}: its runtime refuses it ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
