import pickle
import re
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import deformable_detr
from deformable_detr import Detections, Detector
from deformable_detr.detections import Postprocessing
from deformable_detr.explain import Explanation
from deformable_detr.explain.collecting import Collector
from deformable_detr.images import EXIF_ORIENTATION, ImageError
from deformable_detr.model.attention import DeformableAttention
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import LevelShapes
from deformable_detr.weights import ModelInfo
from helpers.models import small_model

PICTURES = Path(deformable_detr.__file__).parent / "assets" / "pictures"
DEFORMABLE = ["single-scale", "single-scale-dc5", "multi-scale", "refine", "two-stage", "dab-deformable-detr",
              "dino-4scale"]
DENSE = ["detr", "dab-detr"]
SIZES = [(61, 45), (40, 97)]
NAMES = ("cat", "dog", "eel")


def small_detector(preset: str, divisor: int = 64, **changes: object) -> Detector:
    """Attentions that look elsewhere for every query, which those of a new model do not."""
    model = small_model(preset, num_encoder_layers=2, **changes)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            for layer in (module.sampling_offsets, module.attention_weights):
                nn.init.normal_(layer.weight, std=0.5, generator=generator)
    preprocessing = Preprocessing(size=90, max_size=150, divisor=divisor)
    return Detector.from_model(model, ModelInfo(NAMES, (1, 2, 3), preprocessing, {}, Postprocessing(0.0)))


def noise(height: int = 61, width: int = 45) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


class TrueOutputs:
    """What the attention layers of a detector returned in its last run."""

    def __init__(self, detector: Detector) -> None:
        self.of: dict[nn.Module, Tensor] = {}
        model: Any = detector.runtime.model
        self.encoder = [layer.attention for layer in model.encoder.layers]
        self.decoder = [layer.cross_attention for layer in model.decoder.layers]
        for module in [*self.encoder, *self.decoder]:
            module.register_forward_hook(self.keep)

    def keep(self, module: nn.Module, _: object, output: Tensor) -> None:
        self.of[module] = output[0]


def summed(maps: list[Tensor], shapes: LevelShapes, locations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The definition (equation 3): for each query and head the weighted sum of bilinear samples, heads side by side."""
    queries, heads = locations.shape[:2]
    total = np.zeros((queries, heads, maps[0].shape[-1]))
    head = np.arange(heads)[:, None]
    for level, (height, width) in enumerate(shapes):
        values = np.pad(maps[level].double().numpy(), ((0, 0), (1, 1), (1, 1), (0, 0)))     # 0 outside the map
        place = locations[:, :, level].astype(float) * (width, height) - 0.5
        first = np.floor(place)
        for dy in (0, 1):
            for dx in (0, 1):
                corner = first + np.array([dx, dy])
                share = np.prod(1 - np.abs(place - corner), axis=-1) * weights[:, :, level]
                x, y = (corner.astype(int) + 1).transpose(3, 0, 1, 2)
                x, y = x.clip(0, values.shape[2] - 1), y.clip(0, values.shape[1] - 1)
                total += (share[..., None] * values[head, y, x]).sum(2)
    return total.reshape(queries, -1)


def assert_sums_to(output: Tensor, attention: nn.Module, maps: list[Tensor], shapes: LevelShapes,
                   locations: Tensor, weights: Tensor) -> None:
    projection: Any = attention.output_projection
    sums = summed(maps, shapes, locations.numpy(), weights.numpy())
    found = sums @ projection.weight.double().numpy().T + projection.bias.double().numpy()
    np.testing.assert_allclose(found, output.numpy(), atol=1e-5, rtol=0)


def assert_points_give_the_outputs(explanation: Explanation, true: TrueOutputs, step: int = 1) -> None:
    assert explanation.locations is not None
    assert explanation.weights is not None
    for layer, attention in enumerate(true.decoder):
        assert_sums_to(true.of[attention], attention, explanation.values(layer), explanation.valid_shapes,
                       explanation.locations[layer], explanation.weights[layer])
    tokens = list(range(0, sum(height * width for height, width in explanation.level_shapes), step))
    for layer, attention in enumerate(true.encoder):
        readings = explanation.encoder_readings(layer, tokens)
        locations, weights = (torch.stack([getattr(reading, name) for reading in readings])
                              for name in ("locations", "weights"))
        assert_sums_to(true.of[attention][tokens], attention, explanation.encoder_values(layer),
                       explanation.valid_shapes, locations, weights)


@pytest.mark.parametrize("divisor", [1, 64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", DEFORMABLE)
def test_points_and_weights_sum_to_the_true_outputs(preset: str, size: tuple[int, int], divisor: int) -> None:
    detector = small_detector(preset, divisor)
    true = TrueOutputs(detector)
    explanation = detector.explain(noise(*size))
    assert_points_give_the_outputs(explanation, true)
    padded = explanation.valid_shapes != explanation.level_shapes
    assert padded == (divisor > 1)
    for weights in explanation.weights or ():
        torch.testing.assert_close(weights.sum((2, 3)), torch.ones(weights.shape[:2]))


@pytest.mark.parametrize("name", ["penguin", "starfish"])
def test_points_and_weights_of_the_packaged_model_sum_to_the_true_outputs(name: str) -> None:
    detector = Detector("demo", device="cpu")
    true = TrueOutputs(detector)
    assert_points_give_the_outputs(detector.explain(PICTURES / f"{name}.jpg"), true, step=41)


def assert_same(first: Detections, second: Detections) -> None:
    for name in ("boxes", "scores", "labels", "queries"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.names == second.names


@pytest.mark.parametrize("preset", [*DEFORMABLE, *DENSE])
def test_explaining_changes_no_bit_and_leaves_no_hook(preset: str) -> None:
    detector = small_detector(preset)
    image = noise()
    before = detector(image)
    explanation = detector.explain(image)
    assert len(before) > 0
    assert_same(explanation.detections, before)
    assert_same(detector(image), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in detector.runtime.model.modules())


@pytest.mark.parametrize("preset", [*DEFORMABLE, *DENSE])
def test_every_layer_of_every_paper(preset: str) -> None:
    detector = small_detector(preset)
    explanation = detector.explain(noise())
    model: Any = detector.runtime.model
    layers, (components, first) = len(model.decoder.layers), {
        "refine": (4, 2), "two-stage": (4, 4), "dino-4scale": (4, 4), "dab-deformable-detr": (4, 4), "dab-detr": (4, 4),
        "detr": (0, 0)}.get(preset, (2, 2))
    assert [len(each) for each in (explanation.references, explanation.boxes, explanation.scores, explanation.labels,
                                   explanation.self_attention)] == [layers] * 5
    assert [each.shape for each in explanation.references] == [(11, first), (11, components)]
    assert all(((each >= 0) & (each <= 1)).all() for each in [*explanation.references, *explanation.boxes])
    if preset in ("refine", "two-stage"):   # the box after a layer is the next one's reference
        torch.testing.assert_close(explanation.references[1], explanation.boxes[0], rtol=0, atol=0)
    found = explanation.detections
    width, height = explanation.image.size
    for row, query in enumerate(explanation.queries.tolist()):
        x, y, w, h = (explanation.boxes[-1][query].numpy() * (width, height, width, height)).tolist()
        corners = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, [width, height, width, height])
        np.testing.assert_allclose(found.boxes[row], corners, atol=1e-3)
    best = explanation.queries[0]
    assert float(explanation.scores[-1][best]) == found.scores[0]
    assert int(explanation.labels[-1][best]) == found.labels[0]
    for weights in explanation.self_attention:
        torch.testing.assert_close(weights.sum(1), torch.ones(11))
    for value in vars(explanation).values():
        for tensor in value if isinstance(value, list) else ():
            assert not (isinstance(tensor, Tensor) and (tensor.is_inference() or tensor.requires_grad))


@pytest.mark.parametrize(("preset", "changes", "strides"), [
    ("multi-scale", {}, [8, 16, 32, 64]), ("multi-scale", {"num_levels": 2}, [16, 32]), ("single-scale-dc5", {}, [16]),
    ("multi-scale", {"num_levels": 5, "dilation": True, "backbone": "test_resnet"}, [8, 16, 16, 32, 64]),
    ("dino-5scale", {}, [4, 8, 16, 32, 64]), ("detr", {}, [32]), ("detr-dc5", {}, [16])])
def test_the_strides_of_the_levels(preset: str, changes: dict[str, Any], strides: list[int]) -> None:
    explanation = small_detector(preset, 128, **changes).explain(noise(256, 256))
    assert explanation.strides == strides
    assert [128 // height for height, _ in explanation.level_shapes] == strides


@pytest.mark.parametrize("preset", DENSE)
def test_dense_attention_sums_to_the_true_outputs(preset: str) -> None:
    detector = small_detector(preset)
    true = TrueOutputs(detector)
    with Collector(detector.runtime.model) as collected:
        detector(noise())
    explanation = detector.explain(noise())
    assert (explanation.locations, explanation.weights) == (None, None)
    assert explanation.attention is not None
    (height, width), (valid_height, valid_width) = explanation.level_shapes[0], explanation.valid_shapes[0]
    for layer, call in enumerate(collected.cross_attention):
        weights = explanation.attention[layer]
        assert weights.shape == (11, 4, height, width)
        assert weights[..., valid_height:, :].sum() == weights[..., valid_width:].sum() == 0
        attention: Any = call.attention
        with torch.inference_mode():
            value = attention.compared(**call.inputs).value[0].unflatten(-1, (4, -1))       # N M D
            sums = torch.einsum("qmn,nmd->qmd", weights.flatten(2), value).flatten(1)
            output = (attention.out_proj if preset == "detr" else attention.output)(sums)
        torch.testing.assert_close(output, true.of[attention], rtol=0, atol=1e-5)
    reading = explanation.encoder(0, 0, 1, 2)
    assert reading.attention is not None
    assert reading.attention.shape == (4, height, width)
    torch.testing.assert_close(reading.attention.sum((1, 2)), torch.ones(4))
    with pytest.raises(ValueError, match="values: this detector's attention is dense"):
        explanation.values(0)


def test_a_token_reads_around_itself() -> None:
    explanation = Detector.from_model(small_model("multi-scale"), small_detector("multi-scale").info).explain(noise())
    reading = explanation.encoder(0, 0, 3, 2)
    assert reading.locations is not None
    height, width = explanation.valid_shapes[0]
    places = reading.locations[:, 0] * torch.tensor([width, height]) - 0.5      # in cells of the token's level
    torch.testing.assert_close(places[0], torch.tensor([(2.0 + step, 3.0) for step in (1, 2, 3, 4)]),
                               check_dtype=False)
    for name, index in (("layer", (1, 0, 0, 0)), ("level", (0, 4, 0, 0)), ("y", (0, 0, 99, 0)), ("x", (0, 0, 0, -1))):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            explanation.encoder(*index)
    assert explanation.encoder_values(-1)[2].shape == (4, *explanation.level_shapes[2], 8)
    with pytest.raises(ValueError, match="layer: expected -2 to 1, got 2"):
        explanation.values(2)


def test_places_are_those_of_the_unpadded_image() -> None:
    """Zero offsets look at the reference itself, whatever the padding."""
    detector = small_detector("multi-scale")
    for layer in detector.model.modules():
        if isinstance(layer, DeformableAttention):
            nn.init.zeros_(layer.sampling_offsets.weight)
            nn.init.zeros_(layer.sampling_offsets.bias)
    explanation = Detector.from_model(detector.model, detector.info).explain(noise())
    assert explanation.valid_shapes != explanation.level_shapes
    assert explanation.locations is not None
    for references, locations in zip(explanation.references, explanation.locations, strict=True):
        torch.testing.assert_close(locations.float(), references[:, None, None, None].expand_as(locations))


def test_points_of_the_packaged_model_lie_around_the_objects() -> None:
    detector = Detector("demo", device="cpu")
    for name in ("penguin", "starfish", "jellyfish", "stingray"):
        explanation = detector.explain(PICTURES / f"{name}.jpg")
        assert name in explanation.detections.names
        reading = explanation.reading(int(explanation.queries[0]))
        assert reading.locations is not None
        assert reading.weights is not None
        x, y, width, height = explanation.boxes[-1][explanation.queries[0]].tolist()
        distance = (reading.locations - torch.tensor([x, y])).abs() / torch.tensor([width, height])
        around = (distance < 0.75).all(-1)      # the box and half of it again
        assert reading.weights[around].sum() / reading.weights.sum() > 0.9


def test_why_something_was_not_found() -> None:
    detector = Detector("demo", device="cpu")
    explanation = detector.explain(PICTURES / "penguin.jpg", threshold=0.8)
    box, missed = detector(PICTURES / "penguin.jpg").boxes[:2]
    assert len(explanation.detections) == 1
    found, *_ = explanation.nearest(*((box[:2] + box[2:]) / 2).tolist())
    assert (found.query, found.name, found.verdict) == (int(explanation.queries[0]), "penguin", "found")
    assert found.distance == 0
    assert found.scores[-1] == found.score == pytest.approx(explanation.detections.scores[0])
    nearest = explanation.nearest(*((missed[:2] + missed[2:]) / 2).tolist(), count=3)
    assert len(nearest) == 3
    assert nearest[0].verdict == "below the threshold 0.80"
    np.testing.assert_allclose(nearest[0].box, missed, atol=1e-3)
    far = explanation.nearest(-50, -50, count=1000)
    assert len(far) == 100
    assert np.all(np.diff([each.distance for each in far]) >= 0)


def test_a_better_one_was_in_the_way() -> None:
    explanation = small_detector("two-stage").explain(noise(), top_k=1)
    left_out = [each for each in explanation.nearest(20, 30, count=11) if each.verdict.startswith("left out")]
    assert len(explanation.detections) == 1
    assert len(left_out) == 10


def test_an_explanation_that_fails_leaves_no_hook() -> None:
    detector = small_detector("multi-scale")
    model = detector.runtime.model
    before = detector.explain(noise())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    interrupted = model.decoder.layers[-1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        detector.explain(noise())
    interrupted.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert_same(detector.explain(noise()).detections, before.detections)


def test_one_threshold_for_all_classes() -> None:
    with pytest.raises(ValueError, match="threshold: expected one for all classes to explain an image"):
        small_detector("multi-scale").explain(noise(), threshold={"cat": 0.5})


def test_a_pickled_explanation_draws_the_same_page(tmp_path: Path) -> None:
    explanation = small_detector("multi-scale").explain(noise())
    for name, each in (("before.html", explanation), ("after.html", pickle.loads(pickle.dumps(explanation)))):
        each.page(tmp_path / name)
    assert (tmp_path / "before.html").read_bytes() == (tmp_path / "after.html").read_bytes()


def test_an_image_without_detections() -> None:
    explanation = small_detector("multi-scale").explain(noise(), threshold=1)
    assert len(explanation.detections) == len(explanation.queries) == 0
    assert explanation.draw_query(3).size == (443, 600)
    with pytest.raises(ValueError, match="index: nothing was found in this image"):
        explanation.draw(0)
    assert len(explanation.nearest(0, 0)) == 5


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2)])
@pytest.mark.parametrize("preset", ["two-stage", "detr"])
def test_extreme_sizes(preset: str, shape: tuple[int, int]) -> None:
    explanation = small_detector(preset).explain(noise(*shape))
    assert explanation.image.size == shape[::-1]
    assert max(explanation.draw(0).size) == 600
    places = explanation.locations or explanation.attention
    assert places is not None
    assert all(each.isfinite().all() for each in places)


@pytest.mark.parametrize("preset", ["single-scale", "refine", "dino-4scale", "detr"])
def test_a_drawing_of_every_layer(preset: str) -> None:
    explanation = small_detector(preset).explain(noise(610, 700))
    drawings = [explanation.draw(0, layer) for layer in (0, 1, -1)]
    assert {each.size for each in drawings} == {(700, 610)}
    assert drawings[1].tobytes() == drawings[2].tobytes() != drawings[0].tobytes()
    assert drawings[0].tobytes() != explanation.image.tobytes()
    for index, layer, message in ((33, 0, r"index: expected 0 to \d+, got 33"), (-1, 0, "index"), (0, 2, "layer"),
                                  (0, -3, "layer")):
        with pytest.raises(ValueError, match=message):
            explanation.draw(index, layer)


def test_a_heat_map_lies_over_the_image_without_the_padding() -> None:
    detector = small_detector("detr", divisor=128)
    explanation = detector.explain(np.zeros((600, 600, 3), np.uint8))
    assert explanation.attention is not None
    assert explanation.valid_shapes[0] != explanation.level_shapes[0]
    height, width = explanation.valid_shapes[0]
    query = int(explanation.queries[0])
    explanation.attention[0][query] = 0
    explanation.attention[0][query, :, height - 1, width - 1] = 1       # the last token of the image
    drawn = np.asarray(explanation.draw(0, 0)).astype(int).sum(2)
    assert drawn[-20:, -20:].mean() > 300
    assert drawn[300:400, 100:200].mean() < 100


def test_any_source_upright_and_by_its_name(tmp_path: Path) -> None:
    detector = small_detector("multi-scale")
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(noise()))).save(tmp_path / "turned.png", exif=exif)
    explanation = detector.explain(tmp_path / "turned.png")
    assert explanation.name == "turned.png"
    assert explanation.image.tobytes() == noise().tobytes()
    again = detector.explain(noise())
    assert again.name == "image"
    assert_same(explanation.detections, again.detections)
    assert repr(explanation) == ("Explanation of turned.png: 33 detections by 11 queries, 2 decoder layers, "
                                 "4 heads x 4 levels x 4 points")
    with pytest.raises(ImageError, match="no such file"):
        detector.explain(tmp_path / "absent.png")
    with pytest.raises(ValueError, match="threshold: expected a value in"):
        detector.explain(noise(), threshold=2)


@pytest.mark.parametrize("preset", ["two-stage", "detr", "dab-detr"])
def test_half_precision(preset: str) -> None:
    """Parts may compute under autocast, with weights in half precision; what they read is computed again after it."""
    detector = small_detector(preset)
    model: Any = detector.runtime.model
    model.encoder.forward = torch.autocast("cpu", torch.bfloat16)(model.encoder.forward)
    model.decoder.forward = torch.autocast("cpu", torch.bfloat16)(model.decoder.forward)
    for layer in model.encoder.modules():
        if isinstance(layer, nn.Linear):
            layer.bfloat16()
    true = TrueOutputs(detector)
    explanation = detector.explain(noise())
    for each in (explanation.boxes, explanation.scores, explanation.self_attention, explanation.weights,
                 explanation.attention):
        assert all(tensor.dtype == torch.float32 for tensor in each or ())
    for weights in explanation.weights or explanation.attention or ():
        torch.testing.assert_close(weights.flatten(2).sum(2), torch.ones(11, 4))
    reading = explanation.encoder(1, 0, 0, 0)
    weights = reading.attention if reading.weights is None else reading.weights
    assert weights is not None
    torch.testing.assert_close(weights.flatten(1).sum(1), torch.ones(4))
    if explanation.locations is not None and explanation.weights is not None:
        sums = summed(explanation.values(0), explanation.valid_shapes, explanation.locations[0].numpy(),
                      explanation.weights[0].numpy())
        output = model.decoder.layers[0].cross_attention.output_projection(torch.from_numpy(sums).float())
        torch.testing.assert_close(output, true.of[true.decoder[0]].float(), rtol=0, atol=0.02)


def test_another_thread_may_detect_meanwhile() -> None:
    detector = small_detector("multi-scale")
    with Collector(detector.runtime.model) as collected:
        thread = Thread(target=detector, args=(noise(),))
        thread.start()
        thread.join()
        assert not collected.encoder
        detector(noise())
    assert [len(collected.encoder), len(collected.cross_attention), len(collected.references)] == [2, 2, 2]


def test_the_sum_of_the_documentation() -> None:
    """The example of docs/explain.md, run on the packaged model."""
    text = (Path(__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8")
    example = next(code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "np.floor" in code)
    detector = Detector("demo", device="cpu")
    sums: list[Tensor] = []
    last: Any = detector.runtime.model.decoder.layers[-1]
    last.cross_attention.output_projection.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0][0]))
    names: dict[str, Any] = {"explanation": detector.explain(PICTURES / "penguin.jpg")}
    exec(example, names)
    right = sums[0][names["query"]].unflatten(0, (8, -1))[names["head"]]
    np.testing.assert_allclose(names["total"], right, atol=1e-5)
