"""Half precision: near to float32, where it computes, and what "auto" takes."""

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from deformable_detr import Detector
from deformable_detr.detect import precision, runtimes
from deformable_detr.detect.runtimes import TorchRuntime
from deformable_detr.images import read_image
from deformable_detr.model.attention import DeformableAttention
from deformable_detr.ops import use_backend
from deformable_detr.structures import ImageBatch
from deformable_detr.weights.sources import packaged_images
from helpers.models import TINY_INFO, small_model

CPU = torch.device("cpu")
BATCH = ImageBatch.from_images([torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(index))
                                for index in range(2)])
PRESETS = ["two-stage", "multi-scale", "single-scale-dc5", "detr", "dab-detr", "dab-deformable-detr", "dino-4scale"]


@pytest.mark.parametrize("half", ["bf16", "fp16"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_paper_is_near_to_float32(preset: str, half: str) -> None:
    model = small_model(preset, num_queries=200)    # all tokens are proposals: rounding cannot choose others
    exact, near = TorchRuntime(model).run(BATCH), TorchRuntime(model, half).run(BATCH)
    assert near.logits.dtype == near.boxes.dtype == torch.float32
    assert not torch.equal(near.logits, exact.logits)
    tolerance = {"bf16": 0.05, "fp16": 0.005}[half]
    pairs = [(near.boxes[-1], exact.boxes[-1])]
    if preset != "dino-4scale":     # where a proposal's content goes by its rank, which rounding may change
        pairs.append((near.logits[-1], exact.logits[-1]))
    for found, expected in pairs:
        torch.testing.assert_close(found.sort(dim=1).values, expected.sort(dim=1).values, atol=tolerance, rtol=0)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_the_op_takes_half_precision_on_every_backend(backend: str) -> None:
    model = small_model("multi-scale")
    exact = TorchRuntime(model).run(BATCH)
    with use_backend(backend):
        near = TorchRuntime(model, "bf16").run(BATCH)
    assert (near.boxes - exact.boxes).abs().max() < 0.05


def test_what_is_computed_in_which_precision() -> None:
    """Products over pixels and tokens in half precision; boxes, references, scores and norms in float32."""
    runtime = TorchRuntime(small_model("two-stage", backbone="test_resnet"), "bf16")
    lowered, kept = set(), set()
    for name, module in runtime.model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            (lowered if module.weight.dtype == torch.bfloat16 else kept).add(name)
    assert {name.split(".")[0] for name in lowered} == {"backbone", "pyramid", "encoder", "decoder"}
    assert not any(name.startswith(("backbone", "pyramid", "encoder")) for name in kept)
    assert all(name.endswith(("value_projection", "output_projection")) for name in lowered if name.startswith("decod"))
    seen = []
    for module in runtime.model.modules():
        if isinstance(module, DeformableAttention):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].reference.dtype))
    runtime.run(BATCH)
    assert set(seen) == {torch.float32}


def test_a_backbone_with_depthwise_convolutions_stays_in_float32() -> None:
    model = TorchRuntime(small_model(backbone="mobilenetv3_small_050"), "bf16").model
    assert {parameter.dtype for parameter in model.backbone.parameters()} == {torch.float32}
    assert {projection[0].weight.dtype for projection in model.pyramid.projections} == {torch.bfloat16}


def test_the_model_and_its_weights_stay_in_float32() -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    detector = Detector.from_model(model, TINY_INFO, precision="bf16")
    detector(np.zeros((40, 30, 3), dtype=np.uint8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert "on cpu in bf16, 3 classes" in repr(detector)
    assert "bf16" not in repr(Detector.from_model(model, TINY_INFO))


def test_the_packaged_detector_finds_the_same_in_bf16() -> None:
    exact, near = (Detector("demo", "cpu", precision=each) for each in ("fp32", "bf16"))
    for path in packaged_images():
        image = read_image(path)
        first, second = exact(image, 0.5), near(image, 0.4)
        for found in first:
            same = second.boxes[second.labels == found.label]
            assert np.abs(same - found.box).max(axis=1).min() < 3


def test_a_precision_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="precision: expected fp32, auto, bf16, fp16, got 'int8'"):
        precision.check_precision("int8")


def processor(monkeypatch: pytest.MonkeyPatch, *, amx: bool, bf16: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(precision, "_has_bf16", lambda: bf16)


def never(_: str) -> float:
    raise AssertionError("nothing to measure")


def takes(bf16: float) -> Callable[[str], float]:
    return {"fp32": 1.0, "bf16": bf16}.__getitem__


@pytest.mark.parametrize(("amx", "bf16", "seconds", "chosen", "reason"), [
    (True, True, never, "bf16", "this processor has AMX"),
    (False, False, never, "fp32", "this processor has no bf16 arithmetic"),
    (False, True, takes(0.5), "bf16", "bf16 took 0.50 of the time of fp32 here"),
    (False, True, takes(0.95), "fp32", "bf16 took 0.95 of the time of fp32 here"),
    (False, True, takes(3), "fp32", "bf16 took 3.00 of the time of fp32 here")])
def test_auto_takes_what_is_faster_and_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
                                               amx: bool, bf16: bool, seconds: Callable[[str], float], chosen: str,
                                               reason: str) -> None:
    processor(monkeypatch, amx=amx, bf16=bf16)
    with caplog.at_level(logging.INFO, "deformable_detr"):
        assert precision.choose_precision(CPU, seconds) == chosen
    assert f"precision: {chosen} ({reason})" in caplog.messages


def test_auto_measures_the_model_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, amx=False, bf16=True)
    ran = []
    run = TorchRuntime.run

    def watched(runtime: TorchRuntime, batch: ImageBatch) -> object:
        ran.append((runtime.precision, tuple(batch.images.shape)))
        return run(runtime, batch)

    monkeypatch.setattr(TorchRuntime, "run", watched)
    runtime = runtimes.torch_runtime(small_model(), "auto")
    assert runtime.precision in ("fp32", "bf16")
    assert {precision for precision, _ in ran} == {"fp32", "bf16"}
    assert {shape for _, shape in ran} == {(1, 3, 256, 256)}


def test_fp16_without_its_arithmetic_is_said_to_be_slow(monkeypatch: pytest.MonkeyPatch,
                                                        caplog: pytest.LogCaptureFixture) -> None:
    for has, said in ((False, 1), (True, 0)):
        caplog.clear()
        monkeypatch.setattr(precision, "_has_fp16", lambda _, has=has: has)
        TorchRuntime(small_model(), "fp16")
        assert len([message for message in caplog.messages if "no fp16 arithmetic" in message]) == said


def test_compiling_is_announced_and_asked_for(monkeypatch: pytest.MonkeyPatch,
                                              caplog: pytest.LogCaptureFixture) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    with caplog.at_level(logging.INFO, "deformable_detr"):
        detector = Detector.from_model(small_model(), TINY_INFO, compile=True)
    assert len(compiled) == 1
    assert any(message.startswith("compile: ") for message in caplog.messages)
    image = np.zeros((40, 30, 3), dtype=np.uint8)
    expected = Detector.from_model(small_model(), TINY_INFO)
    np.testing.assert_array_equal(detector(image, 0).boxes, expected(image, 0).boxes)
