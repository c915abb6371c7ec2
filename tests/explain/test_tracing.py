import re
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import deformable_detr
from deformable_detr.explain import Stage, trace, trace_images
from deformable_detr.explain.rewriting import rewritten, site_of
from deformable_detr.ops import use_backend
from deformable_detr.papers import DeformableDETR, ModelConfig
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import ImageBatch
from helpers.models import small_model

PACKAGE = Path(deformable_detr.__file__).parent


def build(preset: str, **changes: int) -> DeformableDETR:
    torch.manual_seed(0)
    sizes = {"width": 64, "num_heads": 2, "num_points": 3, "num_encoder_layers": 2, "num_decoder_layers": 3,
             "ffn_width": 32, "num_queries": 20, "num_classes": 5, **changes}
    return DeformableDETR(ModelConfig.preset(preset, backbone="test_resnet", **sizes)).eval()


@pytest.fixture
def batch() -> ImageBatch:
    generator = torch.Generator().manual_seed(1)
    return ImageBatch.from_images([torch.randn(3, 70, 90, generator=generator),
                                   torch.randn(3, 80, 40, generator=generator)])


def shapes(stages: list[Stage]) -> dict[tuple[str, str, str], tuple[int, ...]]:
    return {(stage.file, stage.part, stage.name): stage.shape for stage in stages}


def num_hooks(model: DeformableDETR) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("preset", list(ModelConfig.presets))
@pytest.mark.parametrize("every_layer", [False, True])
def test_every_preset(preset: str, every_layer: bool, batch: ImageBatch) -> None:
    model = build(preset)
    stages = trace(model, batch, every_layer=every_layer)
    found = shapes(stages)
    assert len(found) == len(stages), "two stages of one name"
    assert num_hooks(model) == 0
    assert {"ImageBatch", "PyramidBuilder", "DeformableAttention", "fused_ms_deform_attn", "Detections"} <= {
        stage.source for stage in stages}     # which stay when files move
    for stage in stages:
        assert (PACKAGE / stage.file).is_file()
        assert len(stage.axes.split()) == len(stage.shape)
        assert stage.low <= stage.high
        assert stage.is_finite
    files = list(dict.fromkeys(stage.file for stage in stages))
    assert files == ["structures.py", "model/backbone.py", "model/pyramid.py", "model/encoder.py",
                     "model/attention.py", "ops/__init__.py", "model/feedforward.py", "model/queries.py",
                     "model/decoder.py", "model/heads.py", "detections.py"]
    offsets = [stage.part for stage in stages if stage.name == "sampling offsets"]
    inside = [f"encoder layer {index}" for index in range(2)] + [f"decoder layer {index}" for index in range(3)]
    assert offsets == (inside if every_layer else ["encoder layer 0", "decoder layer 0"])
    components = {part: found["model/decoder.py", part, "reference"][-1] for part in inside[2:]}
    assert list(components.values()) == {"refine": [2, 4, 4], "two-stage": [4, 4, 4]}.get(preset, [2, 2, 2])
    assert (("model/queries.py", "", "proposal logits") in found) == (preset == "two-stage")


@pytest.mark.parametrize("num_levels", [1, 2, 3, 5])
def test_any_number_of_levels(num_levels: int, batch: ImageBatch) -> None:
    found = shapes(trace(build("multi-scale", num_levels=num_levels), batch))
    maps = [name for file, _, name in found if file == "model/backbone.py"]
    assert maps == ["C3", "C4", "C5"][-num_levels:]
    levels = [shape for (_, _, name), shape in found.items() if name.startswith("level ") and name[-1].isdigit()]
    tokens = found["model/pyramid.py", "", "tokens"]
    assert len(levels) == num_levels
    assert tokens == (2, sum(height * width for _, _, height, width in levels), 64)
    assert found["model/encoder.py", "", "reference points"] == (2, tokens[1], num_levels, 2)
    assert found["model/attention.py", "decoder layer 0", "attention weights"] == (2, 20, 2, num_levels, 3)


def test_ranges_and_notes_are_those_of_the_model(batch: ImageBatch) -> None:
    model = build("two-stage")
    stages = {(stage.part, stage.name): stage for stage in trace(model, batch)}
    with torch.inference_mode():
        predictions = model(batch)
        features = model.backbone(batch)
        pyramid = model.pyramid(features)
        memory = model.encoder(pyramid)
    assert predictions.proposals is not None
    for key, values in {("", "images"): batch.images, ("", "C4"): features.maps[1], ("", "tokens"): pyramid.tokens,
                        ("", "memory"): memory.tokens, ("", "proposal boxes"): predictions.proposals.boxes,
                        ("decoder layer 1", "boxes"): predictions.boxes[1], ("", "logits"): predictions.logits,
                        }.items():
        assert stages[key].shape == tuple(values.shape)
        assert (stages[key].low, stages[key].high) == (float(values.min()), float(values.max()))
    assert stages["", "padding"].dtype == "bool"
    assert stages["encoder layer 0", "attention weights"].low == pytest.approx(1 / 12)
    assert stages["", "level starts"].notes == (", ".join(map(str, pyramid.level_starts)),)
    assert len(stages["", "valid ratios"].notes) == 2


def test_the_model_is_left_as_it_was(batch: ImageBatch) -> None:
    model = build("refine")
    with torch.inference_mode():
        before = model(batch)
        trace(model, batch)
        after = model(batch)
    torch.testing.assert_close(before.boxes, after.boxes, rtol=0, atol=0)
    model.train()
    trace(model, batch)
    assert model.training
    assert num_hooks(model) == 0


def test_no_hook_is_left_after_an_error(batch: ImageBatch) -> None:
    model = build("multi-scale")
    model.queries.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trace(model, batch)
    assert num_hooks(model) == 1


def test_values_that_are_not_finite(batch: ImageBatch) -> None:
    model = build("multi-scale")
    with torch.no_grad():
        model.decoder.heads.shared.classify.bias[0] = torch.nan
        model.decoder.heads.shared.locate[-1].bias[0] = torch.inf
    found = trace(model, batch)
    assert next(stage for stage in found if not stage.is_finite).name == "logits"
    assert not any(stage.source == "Detections" for stage in found)     # but all that leads to them
    stages = {(stage.part, stage.name): stage.to_dict() for stage in found}
    logits, boxes = stages["", "logits"], stages["", "boxes"]
    assert (logits["min"], logits["max"]) == (None, None)
    assert boxes["max"] == 1
    assert logits["shape"] == (3, 2, 20, 5)


def test_images_are_prepared_as_for_the_weights() -> None:
    images = [np.full((40, 60, 3), 255, np.uint8), np.zeros((30, 20, 3), np.uint8)]
    model = build("multi-scale")
    plain = shapes(trace_images(model, images))
    assert plain["images/reading.py", "", "image 0"] == (40, 60, 3)
    assert plain["preprocessing.py", "", "image 1"] == (3, 30, 20)
    assert plain["structures.py", "", "images"] == (2, 3, 40, 60)
    names = ("ant", "bee", "cat", "dog", "eel")
    stages = trace_images(model, images, Preprocessing(size=64, max_size=100, divisor=32), names)
    resized = shapes(stages)
    assert resized["preprocessing.py", "", "image 0"] == (3, 64, 96)
    assert resized["preprocessing.py", "", "image 1"] == (3, 96, 64)
    assert resized["structures.py", "", "images"] == (2, 3, 96, 96)
    notes = {stage.name: stage.notes for stage in stages}
    assert notes["image 1 boxes"] == ("in pixels of 30 x 20",)
    assert any(repr(name) in notes["image 1 scores"][0] for name in names)


def test_wrong_arguments(batch: ImageBatch) -> None:
    model = build("multi-scale")
    with pytest.raises(ValueError, match="image_sizes: expected 2"):
        trace(model, batch, [(70, 90)])
    with pytest.raises(ValueError, match="names: expected 5"):
        trace(model, batch, names=("ant",))
    with pytest.raises(ValueError, match="at least one image"):
        trace_images(model, [])


@pytest.mark.parametrize("preset", ["detr", "dab-detr", "dab-deformable-detr", "dino-4scale"])
def test_every_paper(preset: str, batch: ImageBatch) -> None:
    model = small_model(preset)
    stages = trace(model, batch, every_layer=True)
    found = shapes(stages)
    assert len(found) == len(stages), "two stages of one name"
    assert num_hooks(model) == 0
    assert all(len(stage.axes.split()) == len(stage.shape) and stage.is_finite for stage in stages)
    made = [stage.part for stage in stages if stage.file == "model/places.py" and stage.name == "position"]
    assert made == ([] if preset == "detr" else ["decoder layer 0", "decoder layer 1"])
    assert (("model/places.py", "decoder layer 1", "sine") in found) == (preset == "dab-detr")
    assert found["model/decoder.py", "", "boxes"] == (2, 2, 11, 4)


# A piece of the line that makes each stage, of any paper: a number that is off by one is another statement.
STATEMENTS = {
    "images/reading.py": {"image": "return"},
    "preprocessing.py": {"image": "return normalised("},
    "structures.py": {"images": "return cls(", "padding": "return cls("},
    "model/backbone.py": {"C": "maps = net("},
    "model/pyramid.py": {
        "level": ("levels = [layer(values)", "source = layer(source)", "level = self.projection("),
        "tokens": "tokens=flatten(", "position": "position=flatten(", "padding": "padding=",
        "level shapes": "level_shapes=", "level starts": "level_shapes=", "valid ratios": "valid_ratios="},
    "model/encoder.py": {
        "reference points": "reference = token_reference(pyramid)", "layer tokens": "tokens=layer(pyramid, place)",
        "memory": "return pyramid", "position": "return memory.position * self.scale"},
    "model/attention.py": {
        "value": "return value.unflatten", "sampling offsets": "self.sampling_offsets(query)",
        "attention weights": "self.attention_weights(query)", "output": "return self.output_projection(sampled)"},
    "ops/__init__.py": {"samples": ("return output", "return reference_ms_deform_attn(")},
    "model/dense_attention.py": {"output": "return self.attend("},
    "model/conditional_attention.py": {"output": "return self.output(attend("},
    "model/feedforward.py": {"hidden": "hidden = "},
    "model/queries.py": {
        "query": ("position, content = ", "embedded: Embedded = ", "position = ", "return Queries("),
        "proposal logits": "logits = self.head.classify(hidden)", "proposal boxes": "self.head.move(hidden, start)",
        "position": ("position, content = ", "position = ", "embedded: Embedded = "),
        "content": ("position, content = ", "embedded: Embedded = ", "return Queries("),
        "reference": ("reference = proposals.boxes.gather(", "return Queries(")},
    "model/places.py": {"position": "return ", "sine": "return "},
    "model/decoder.py": {
        "reference": "place = self.places(", "self-attention": "attended = self.self_attention(",
        "hidden": "return self.feed_forward(hidden)", "logits": "return self.split_extra(",
        "boxes": "return self.split_extra("},
    "model/heads.py": {"logits": "self.classify(hidden)", "boxes": "self.moved(hidden, reference)"},
    "detections.py": {"image boxes": "return found if", "image scores": "return found if"},
}
ALL = [*ModelConfig.presets, "detr", "dab-detr", "dab-deformable-detr", "dino-4scale", "dino-5scale"]


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("preset", ALL)
def test_line_numbers_are_true(preset: str, backend: str) -> None:
    image = np.zeros((70, 90, 3), np.uint8)
    with use_backend(backend):
        stages = trace_images(small_model(preset), [image], every_layer=True)
    for stage in stages:
        words = [word for word in re.sub(r"\d+", "", stage.name).split() if word]
        name = "query" if words[0] == "query" else " ".join(words)
        expected = STATEMENTS[stage.file][name]
        line = stage.path.read_text().splitlines()[stage.line - 1]
        assert any(text in line for text in ([expected] if isinstance(expected, str) else expected)), (stage, line)


@pytest.mark.parametrize("preset", ALL)
def test_every_stage_has_a_time_and_a_reason(preset: str, batch: ImageBatch) -> None:
    stages = trace(small_model(preset), batch, every_layer=True, warm=True)
    assert all(stage.reason and stage.reason[-1] != "." for stage in stages)
    timed = [stage for stage in stages if stage.milliseconds is not None]
    assert all(stage.milliseconds >= 0 for stage in timed)
    others = [(before, stage) for before, stage in pairwise(stages) if stage.milliseconds is None]
    assert all((before.file, before.line) == (stage.file, stage.line) for before, stage in others)


def test_times_add_up() -> None:
    """What a stage costs is counted once, and what recording it costs is not."""
    model = small_model("two-stage")
    model.encoder.layers[0].attention.output_projection.register_forward_hook(lambda *_: time.sleep(0.2))
    image = np.zeros((70, 90, 3), np.uint8)
    start = time.perf_counter()
    stages = trace_images(model, [image])
    elapsed = 1000 * (time.perf_counter() - start)
    times = {(stage.part, stage.name): stage.milliseconds or 0 for stage in stages}
    assert times["encoder layer 0", "output"] >= 200
    assert 200 <= sum(times.values()) <= elapsed


def test_recording_changes_no_bit(batch: ImageBatch) -> None:
    """Stages are the tensors that the model computes, whoever looks on."""
    for preset in ALL:
        model = small_model(preset)
        with torch.inference_mode():
            expected = model(batch)
        stages = {(stage.file, stage.part, stage.name): stage for stage in trace(model, batch, keep=True)}
        boxes = stages["model/decoder.py", "", "boxes"].values
        assert boxes is not None
        assert torch.equal(boxes, expected.boxes)
        assert "tensor(" not in repr(stages["model/decoder.py", "", "boxes"])
        assert not any("forward" in vars(module) for module in model.modules())


def test_a_stop_is_in_the_frame_of_the_model(batch: ImageBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every stage of every paper: the file, the line and the tensor that the trace says."""
    seen: list[tuple[str, int, tuple[int, ...]]] = []

    def stop() -> None:
        frame = sys._getframe(1)
        seen.append((Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix(), frame.f_lineno,
                     tuple(frame.f_locals["tensor"].shape)))

    monkeypatch.setattr("sys.breakpointhook", stop)
    for preset in ALL:
        seen.clear()
        stages = trace(small_model(preset), batch, stop=lambda stage: stage.source != "ImageBatch")
        expected = [(stage.file, stage.line, stage.shape) for stage in stages if stage.source != "ImageBatch"]
        assert sorted(seen) == sorted(expected)


def twice(value: int, *, more: int = 1) -> tuple[int, int]:
    total = value + more
    total = total * 2
    pair = (total, -total)
    low, high = sorted(pair)
    if low == high:
        return 0, 0
    return low, high


def test_values_by_name() -> None:
    seen = []
    copy = rewritten(twice, ["total#2", "high", "return.0", "return"], lambda site, value: seen.append((site, value)),
                     lambda site: ())
    assert copy(3, more=2) == twice(3, more=2) == (-10, 10)
    start = twice.__code__.co_firstlineno
    assert [(site.value, site.line - start, value) for site, value in seen] == [
        ("total#2", 2, 10), ("high", 4, 10), ("return.0", 7, -10), ("return", 7, (-10, 10))]
    assert site_of(twice, "return").line == start + 6
    with pytest.raises(AssertionError, match="no value width in twice"):
        rewritten(twice, ["width"], lambda site, value: None, lambda site: ())
