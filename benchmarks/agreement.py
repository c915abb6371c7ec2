"""How far exported files are from PyTorch: `python benchmarks/agreement.py IMAGES [--presets detr ...]`.

Every preset with random weights (and "demo", the packaged model), in both forms of the op, with a free and a fixed size
and batch, in ONNX Runtime and OpenVINO. Each of ten images (those of the most different shapes in the folder) is run
alone at two sizes, and three of unequal sizes together; the table has the largest differences of logits, and of boxes
in pixels of the images. The images' short side is `--size`; `--small` takes a backbone of 0.1 million parameters and
two layers, which finds what a runtime cannot do in a tenth of the time.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from deformable_detr import Detector, ModelConfig, build_model
from deformable_detr.export import Form, Limits
from deformable_detr.export.cases import Pixels, cases
from deformable_detr.export.exporting import output_names
from deformable_detr.export.files import write_onnx, write_openvino
from deformable_detr.export.metadata import Op, write_metadata
from deformable_detr.export.program import detector_graph, export_program
from deformable_detr.export.proof import Difference, compare
from deformable_detr.export.sessions import open_session
from deformable_detr.images import find_images, read_image
from deformable_detr.model.network import Network
from deformable_detr.papers.config import Preset
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.weights import ModelInfo

SMALL = {"backbone": "test_efficientnet", "width": 32, "num_heads": 4, "num_encoder_layers": 1,
         "num_decoder_layers": 2, "ffn_width": 48, "num_queries": 11}
DEVIATION = 0.05    # of the weights of layers that start at zero
FORMS = ("free", "fixed")
RUNTIMES = {"onnx": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True)
class Row:
    """A file, and how far it was from PyTorch."""

    preset: str
    op: str
    shape: str
    runtime: str
    batches: int
    difference: Difference

    def __str__(self) -> str:
        logits, pixels, scores = (f"{getattr(self.difference, name):.1e}" for name in ("logits", "pixels", "scores"))
        verdict = "yes" if self.difference.is_within(Limits()) else "NO"
        cells = (self.preset, self.op, self.shape, self.runtime, str(self.batches), logits, pixels, scores, verdict)
        return f"| {' | '.join(cells)} |"


def chosen_images(folder: Path, count: int) -> list[Pixels]:
    """Images spread evenly over the shapes in the folder, from the narrowest to the widest."""
    images = sorted(map(read_image, find_images(folder)), key=lambda image: image.shape[1] / image.shape[0])
    return [images[place] for place in np.linspace(0, len(images) - 1, count).round().astype(int)]


def build(name: str, small: bool, size: int) -> tuple[Network, ModelInfo]:
    """A model, whose predictions depend on the image: layers that start at zero are random too."""
    if name == "demo":
        detector = Detector(device="cpu")
        return detector.model, detector.info
    torch.manual_seed(0)
    backbone = {"backbone": "test_resnet"} if "dc5" in name else {}
    model = build_model(ModelConfig.preset(name, num_classes=7, **({**SMALL, **backbone} if small else {}))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(std=DEVIATION)
    names = tuple("abcdefg")
    return model, ModelInfo(names, tuple(range(len(names))), Preprocessing(size, round(size * 5 / 3)))


def rows(name: str, model: Network, info: ModelInfo, op: Op, shape: str, runtimes: Sequence[str],
         images: Sequence[Pixels]) -> Iterator[Row]:
    """One export, in each runtime."""
    side = info.preprocessing.size
    form = Form(op=op) if shape == "free" else Form(op=op, batch=2, size=(side, side * 4 // 3))
    graph = detector_graph(model, info.preprocessing, form)
    metadata = write_metadata(model.config, info, form)
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder, "model.onnx")
        start = time.perf_counter()
        write_onnx(export_program(graph, form), onnx_file, output_names(graph), metadata)
        print(f"{name}, {op}, {shape}: exported in {time.perf_counter() - start:.0f} s", flush=True)
        for runtime in runtimes:
            path = onnx_file.with_suffix(RUNTIMES[runtime])
            if runtime == "openvino":
                write_openvino(onnx_file, path, metadata)
            session = open_session(path, "cpu")
            differences = [compare(session, graph, case) for case in cases(images, info.preprocessing, form)]
            yield Row(name, op, shape, runtime, len(differences), largest(differences))


def largest(differences: Sequence[Difference]) -> Difference:
    values: dict[str, Any] = {field.name: float(np.max([getattr(each, field.name) for each in differences]))
                              for field in fields(Difference) if field.name != "case"}     # NaN if any is
    return Difference("all", **values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="a folder of images")
    parser.add_argument("--presets", nargs="+", default=["demo", *get_args(Preset)])
    parser.add_argument("--ops", nargs="+", choices=get_args(Op), default=get_args(Op))
    parser.add_argument("--shapes", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--runtimes", nargs="+", choices=tuple(RUNTIMES), default=tuple(RUNTIMES))
    parser.add_argument("--count", type=int, default=10, help="of images")
    parser.add_argument("--size", type=int, default=256, help="of the short side, except for demo")
    parser.add_argument("--small", action="store_true", help="a small backbone and two layers")
    arguments = parser.parse_args()
    images = chosen_images(arguments.images, arguments.count)
    print("images: " + ", ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images))
    print("| model | op | shape | runtime | batches | logits | pixels | scores | within |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for op, shape, name in itertools.product(arguments.ops, arguments.shapes, arguments.presets):
        model, info = build(name, arguments.small, arguments.size)
        try:
            for row in rows(name, model, info, op, shape, arguments.runtimes, images):
                print(row, flush=True)
        except Exception as error:     # the other rows are worth having
            print(f"{name} | {op} | {shape} | {type(error).__name__}: {' '.join(str(error).split())[:500]}", flush=True)


if __name__ == "__main__":
    main()
