"""Exported files in their runtimes beside PyTorch: `python benchmarks/runtimes.py --files FOLDER [--model multi-scale]`.

The packaged detector on a packaged image, or R50 multi-scale with random weights on the same one at 800 x 1066. Both
forms of the op are exported into FOLDER, which takes minutes; files that are there already are taken as they are. How
far each answer is from PyTorch's in float32 is printed before anything is timed. `--also` measures other files that
`ddetr export` wrote of the same model, such as quantised ones.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import cell, timed
from published import build_ours

from deformable_detr import Detector, ImageBatch
from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.detect.precision import Precision
from deformable_detr.export import Form
from deformable_detr.export.files import write_openvino
from deformable_detr.export.sessions import OnnxSession
from deformable_detr.images import read_image
from deformable_detr.preprocessing import Preprocessing, prepare_image
from deformable_detr.structures import Predictions
from deformable_detr.weights import ModelInfo
from deformable_detr.weights.sources import packaged_images

OPS = ("gridsample", "gather")
HALF: Precision = "bf16"
BEST = 10       # queries that are compared
Look = Callable[[], Predictions]


def build(model: str, precision: Precision = "fp32") -> Detector:
    if model == "demo":
        return Detector("demo", "cpu", precision=precision)
    network = build_ours(model)
    classes = range(network.config.num_classes)
    info = ModelInfo(tuple(f"class {index}" for index in classes), tuple(classes), Preprocessing())
    return Detector.from_model(network, info, precision=precision)


def exported(detector: Detector, model: str, op: str, folder: Path) -> tuple[Path, Path]:
    """The file for ONNX Runtime, and what OpenVINO makes of it."""
    onnx, xml = (folder / f"{model}-{op}{suffix}" for suffix in (".onnx", ".xml"))
    if not onnx.exists():
        detector.export(onnx, form=Form(op=op), pictures=packaged_images()[:1], report=print)
    if not xml.exists():
        metadata = OnnxSession(onnx, "cpu").metadata
        assert metadata is not None
        write_openvino(onnx, xml, metadata)
    return onnx, xml


def looking(detector: Detector) -> Look:
    """The model on the image, from tensor to tensor."""
    preprocessing = detector.info.preprocessing
    image = prepare_image(read_image(packaged_images()[0]), preprocessing)
    batch = ImageBatch.from_images([image], size_divisor=preprocessing.divisor)
    return lambda: detector.runtime.run(batch)


def cases(model: str, folder: Path, also: list[Path]) -> dict[str, Look]:
    ours = build(model)
    found = {"deformable_detr": looking(ours), f"deformable_detr, {HALF}": looking(build(model, HALF))}
    for op in OPS:
        onnx, xml = exported(ours, model, op, folder)
        found[f"ONNX Runtime, {op}"] = looking(Detector(onnx, "cpu"))
        found[f"OpenVINO, {op}"] = looking(Detector(xml, "cpu"))
        found[f"OpenVINO, {op}, {HALF}"] = looking(Detector(xml, "cpu", precision=HALF))
    return found | {path.name: looking(Detector(path, "cpu")) for path in also}


def difference(found: Predictions, expected: Predictions, side: int) -> str:
    """The largest of logits, and of the edges of boxes in pixels of an image whose longer side has this length.

    Of the best queries alone, each beside the one whose box is nearest: where a two-stage detector takes other faint
    proposals, or the same in another order, the queries stand in other rows.
    """
    best = expected.scores()[0].amax(-1).topk(BEST).indices
    boxes, others = cxcywh_to_xyxy(expected.boxes[-1, 0, best]), cxcywh_to_xyxy(found.boxes[-1, 0])
    pairs = torch.cdist(boxes, others).argmin(-1)
    logits = (found.logits[-1, 0, pairs] - expected.logits[-1, 0, best]).abs().max()
    return f"{logits:.1e} | {side * (others[pairs] - boxes).abs().max():.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--model", choices=("demo", "multi-scale"), default="demo")
    parser.add_argument("--also", type=Path, nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    options.files.mkdir(parents=True, exist_ok=True)
    looks = cases(options.model, options.files, options.also)
    answers = {name: look() for name, look in looks.items()}
    ours = "deformable_detr"
    side = max(read_image(packaged_images()[0]).shape)
    times = timed(looks, options.repeats, in_sequence=True)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.model}\n")
    print("| | ms: median (minimum) | times ours | logits differ by | boxes by, pixels |\n|---|---|---|---|---|")
    for name, each in times.items():
        print(f"| {name} | {cell(each, times[ours])} | {difference(answers[name], answers[ours], side)} |")


if __name__ == "__main__":
    main()
