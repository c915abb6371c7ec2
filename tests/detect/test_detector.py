import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import deformable_detr
from deformable_detr import Detections, Detector, ModelConfig
from deformable_detr.detect.runtimes import TorchRuntime
from deformable_detr.detections import Postprocessing
from deformable_detr.evaluation import detect_all
from deformable_detr.explain import trace_images
from deformable_detr.images import EXIF_ORIENTATION, ImageError
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.loader import build_loader
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.papers import DeformableDETR
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import ImageBatch
from deformable_detr.weights import ModelInfo, WeightsError, save

TINY = ModelConfig(backbone="test_resnet", width=64, num_heads=2, num_points=2, num_encoder_layers=1,
                   num_decoder_layers=2, ffn_width=32, num_queries=20, num_classes=3)
INFO = ModelInfo(("cat", "dog", "猫"), (1, 17, 90), Preprocessing(size=64, max_size=96, divisor=32))
ASSETS = Path(deformable_detr.__file__).parent / "assets"
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 45, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(path, DeformableDETR(TINY), INFO)
    return path


@pytest.fixture(scope="module")
def torch_detector(weights: Path) -> Detector:
    return Detector(weights, device="cpu")


@pytest.fixture(scope="module", params=["torch", "free.onnx", "free.xml"])
def detector(request: pytest.FixtureRequest, torch_detector: Detector, exported_files: Path) -> Detector:
    """The same model in each runtime."""
    return torch_detector if request.param == "torch" else Detector(exported_files / request.param, device="cpu")


def assert_near(first: Detections, second: Detections) -> None:
    """To 0.05 pixels, whatever batch they were in."""
    np.testing.assert_allclose(first.boxes, second.boxes, rtol=0, atol=0.05)
    np.testing.assert_allclose(first.scores, second.scores, rtol=0, atol=1e-4)
    assert first.names == second.names
    assert first.image_size == second.image_size


def assert_same(first: Detections, second: Detections) -> None:
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.names == second.names
    assert first.image_size == second.image_size


def test_detections_are_those_of_the_evaluation_transform(detector: Detector, torch_detector: Detector) -> None:
    no_boxes, no_labels = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    image, _ = eval_transform(INFO.preprocessing)(IMAGE, no_boxes, no_labels)
    with torch.no_grad():
        expected = torch_detector.model(ImageBatch.from_images([image], size_divisor=32))
    found = detector(IMAGE, threshold=0, top_k=7)
    right = expected.detections([(60, 45)], 7, INFO.names)[0]
    np.testing.assert_allclose(found.scores, right.scores, rtol=1e-5)   # batch norms are folded
    np.testing.assert_allclose(found.boxes, right.boxes.clip(0, (45, 60, 45, 60)), rtol=1e-5, atol=1e-3)


def test_each_class_may_have_a_threshold(detector: Detector) -> None:
    every = detector(IMAGE, threshold=0)
    cut = float(np.median(every.scores[every.labels == 0]))
    found = detector(IMAGE, threshold={"cat": cut, "dog": 0})       # 猫 has that of the weights
    assert_same(found, every.above(np.array([cut, 0, 0.5], np.float32)))
    assert {"cat", "dog"} == set(found.names)
    together = detector([IMAGE, IMAGE], threshold={"cat": cut, "dog": 0})
    for each in together:
        assert_near(each, found)


def test_classes_are_chosen_before_the_best(detector: Detector) -> None:
    every = detector(IMAGE, threshold=0)
    wanted = detector.thresholds(0, classes=["dog", "猫"])
    found = detector(IMAGE, wanted, top_k=6)
    assert_same(found, every[every.labels != 0][:6])
    assert found.category_ids == INFO.category_ids
    assert len(detector(IMAGE, detector.thresholds(0, classes=[]))) == 0
    assert detector.thresholds() == 0.5
    assert detector.thresholds(0.25) == 0.25
    assert detector.thresholds(np.float32(0.25)) == 0.25


@pytest.mark.parametrize(("threshold", "classes", "message"), [
    (1.5, None, r"threshold: expected a value in \[0, 1\], got 1.5"),
    ({"cat": -1}, None, r"threshold of cat: expected a value in \[0, 1\], got -1"),
    ({"cow": 0.5}, None, "classes: expected some of .*'cat', 'dog'.*, got 'cow'"),
    (None, ["cow"], "classes: expected some of .*, got 'cow'"),
    (np.zeros(2, np.float32), None, r"threshold: expected one for each class \(3\), got \(2,\)")])
def test_thresholds_that_cannot_be(detector: Detector, threshold: Any, classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detector.thresholds(threshold, classes)


def test_overlaps_are_suppressed_where_the_weights_ask_for_it(torch_detector: Detector, tmp_path: Path) -> None:
    save(tmp_path / "strict.safetensors", torch_detector.model, replace(INFO, postprocessing=Postprocessing(0.5, 0.3)))
    found = torch_detector(IMAGE, threshold=0)
    kept = Detector(tmp_path / "strict.safetensors", device="cpu")(IMAGE, threshold=0)
    assert 0 < len(kept) < len(found)
    assert set(map(tuple, kept.boxes.tolist())) <= set(map(tuple, found.boxes.tolist()))


def test_the_public_model_stays_as_it_was_loaded(weights: Path, tmp_path: Path) -> None:
    detector = Detector(weights, device="cpu")
    before = detector(IMAGE, threshold=0)
    save(tmp_path / "again.safetensors", detector.model, detector.info)
    assert_same(Detector(tmp_path / "again.safetensors", device="cpu")(IMAGE, threshold=0), before)
    detector.model.double()     # which the private copy does not follow
    assert_same(detector(IMAGE, threshold=0), before)


def test_any_iterable_is_a_list_of_images(detector: Detector) -> None:
    one = detector(IMAGE, threshold=0)
    other = np.ascontiguousarray(IMAGE[::-1])
    for several in ([IMAGE, other], (IMAGE, other), (each for each in (IMAGE, other)), {0: IMAGE, 1: other}.values(),
                    np.stack([IMAGE, other]), torch.from_numpy(np.stack([IMAGE, other])).permute(0, 3, 1, 2)):
        found = detector(several, threshold=0)
        assert isinstance(found, list)
        assert len(found) == 2
        assert_near(found[0], one)
    assert detector(()) == []
    assert isinstance(detector((IMAGE,)), list)


def test_detector_evaluation_and_trace_suppress_the_same(weights: Path, tmp_path: Path) -> None:
    """NMS and threshold are kept with the weights, and every use of these applies them."""
    model = Detector(weights, device="cpu").model
    info = ModelInfo(INFO.names, INFO.category_ids, Preprocessing(size=64, max_size=96), {}, Postprocessing(0.02, 0.3))
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    (tmp_path / "val.json").write_text(json.dumps({
        "images": [{"id": 7, "file_name": "a.png", "width": 45, "height": 60}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(INFO.names)],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 0, "bbox": [1, 2, 30, 40]}]}))
    detector = Detector.from_model(model, info)
    found = detector(IMAGE, threshold=0)
    assert 0 < len(found) < 60
    assert len(detector(IMAGE)) == len(found.above(0.02)) > 0
    dataset = DetectionDataset(tmp_path, "val", eval_transform(info.preprocessing))
    evaluator = detect_all(detector.runtime.run, build_loader(dataset, 1, training=False), dataset.annotations,
                           names=info.names, nms_threshold=info.postprocessing.nms_threshold)
    assert len(evaluator.found[7]) == len(found)
    stages = trace_images(model, [IMAGE], info.preprocessing, info.names, postprocessing=info.postprocessing)
    assert stages[-1].shape == (len(found),)
    assert f"{len(found.above(0.02))} with a score of at least 0.02" in stages[-1].notes[0]


def test_a_detector_is_shown_by_its_classes_and_settings(detector: Detector) -> None:
    kind = "DeformableDETR" if isinstance(detector.runtime, TorchRuntime) else "an exported file"
    assert repr(detector) == (f"Detector({kind} on cpu, 3 classes: cat, dog, 猫; "
                              "images resized to 64, at most 96; threshold 0.5)")


def test_predictions_that_are_not_finite_are_an_error(weights: Path) -> None:
    detector = Detector(weights, device="cpu")
    with torch.no_grad():
        detector.model.decoder.layers[1].feed_forward.norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="predictions: expected finite"):
        detector(IMAGE)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), MemoryError(),
                                   RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: no memory")])
def test_a_lack_of_memory_is_one_error(weights: Path, error: Exception) -> None:
    detector = Detector(weights, device="cpu")

    def fail(*_: object) -> None:
        raise error

    detector.model.backbone.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError, match="out of memory; a smaller size"):
        Detector.from_model(detector.model, detector.info)(IMAGE)


def test_the_result_is_in_pixels_of_the_image(detector: Detector) -> None:
    found = detector(IMAGE, threshold=0)
    assert len(found) == 60                  # all of 20 queries x 3 classes: fewer than top_k
    assert found.image_size == (60, 45)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert (found.boxes >= 0).all()
    assert (found.boxes <= (45, 60, 45, 60)).all()
    assert (np.diff(found.scores) <= 0).all()
    assert found.names == [INFO.names[label] for label in found.labels]
    assert found.draw(IMAGE).size == (45, 60)
    assert detector.names == INFO.names
    assert detector.info.names == INFO.names
    assert detector.info.category_ids == INFO.category_ids


def test_the_model_and_what_is_known_about_it(torch_detector: Detector) -> None:
    assert torch_detector.info == INFO
    assert not torch_detector.model.training


def test_boxes_are_clipped_to_the_image(weights: Path) -> None:
    detector = Detector(weights, device="cpu")
    with torch.no_grad():
        locate = detector.model.decoder.heads.get_submodule("shared").locate
        locate[-1].bias[2:] = 20   # as large as the image
    boxes = detector(IMAGE, threshold=0).boxes
    assert (boxes >= 0).all()
    assert (boxes <= (45, 60, 45, 60)).all()
    assert ((boxes == 0) | (boxes == (45, 60, 45, 60))).sum() > len(boxes)


def test_every_kind_of_source_gives_the_same(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(IMAGE).save(path)
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(IMAGE)))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    tensor = torch.from_numpy(IMAGE).permute(2, 0, 1)
    sources = [path, str(path), Image.open(path), IMAGE, tensor, tensor / 255, tmp_path / "turned.png"]
    expected = detector(IMAGE, threshold=0)
    found = detector(sources, threshold=0)
    assert isinstance(found, list)
    for one in found:
        assert_near(one, expected)
    assert detector([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (3, 2)])
def test_extreme_sizes(detector: Detector, shape: tuple[int, int]) -> None:
    found = detector(np.full((*shape, 3), 90, dtype=np.uint8), threshold=0)
    assert found.image_size == shape
    assert np.isfinite(found.boxes).all()
    assert len(found) == 60


def test_threshold_and_top_k(detector: Detector) -> None:
    everything = detector(IMAGE, threshold=0)
    middle = float(everything.scores[30])
    above = detector(IMAGE, threshold=middle)
    assert len(above) == (everything.scores >= middle).sum()
    assert len(detector(IMAGE, threshold=0, top_k=5)) == 5
    assert len(detector(IMAGE, threshold=1)) == 0
    for threshold in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="threshold: expected a value in"):
            detector(IMAGE, threshold=threshold)
    with pytest.raises(ValueError, match="top_k: expected at least 1, got 0"):
        detector(IMAGE, top_k=0)


def test_a_bad_image_is_an_error(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        detector(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="float"):
        detector(IMAGE.astype(np.float32))


def test_weights_and_devices_that_are_not_there(weights: Path, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"a file or a folder, got '.*absent.safetensors'"):
        Detector(tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="device: 'abacus' is not available here"):
        Detector(weights, device="abacus")
    with pytest.raises(ValueError, match="device: 'meta' is not available here"):
        Detector(weights, device="meta")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: 'cuda' is not available here"):
            Detector(weights, device="cuda")


def test_packaged_weights(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deformable_detr.weights.sources.resources.files", lambda package: tmp_path)
    with pytest.raises(WeightsError, match="has no 'demo' weights"):
        Detector("demo")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "demo.safetensors").write_bytes(weights.read_bytes())
    assert Detector("demo").names == INFO.names


@pytest.mark.parametrize("name", ["jellyfish", "penguin", "starfish", "stingray"])
def test_the_packaged_weights_find_the_animals_of_the_packaged_images(name: str) -> None:
    demo = Detector("demo", device="cpu")
    assert demo.names == ("fish", "jellyfish", "penguin", "puffin", "shark", "starfish", "stingray")
    assert "CC BY 4.0" in demo.info.provenance["license"]
    found = demo(ASSETS / "pictures" / f"{name}.jpg", threshold=0.5)
    assert found.names[int(found.scores.argmax())] == name
    assert max(found.image_size) == 512


def test_the_packaged_file_names_no_path_of_the_machine_that_made_it() -> None:
    header = (ASSETS / "demo.safetensors").read_bytes()[:10_000]
    assert b'"/' not in header
    assert b" /" not in header


def test_a_picture_for_notebooks_is_kept_where_it_costs_nothing(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(IMAGE).save(path)
    assert detector(path).source == path
    assert detector(IMAGE).source is IMAGE
    assert [found.source for found in detector([path, IMAGE, str(path)])] == [path, None, str(path)]
    with path.open("rb") as file:
        assert detector(file).source is None, "it has been read"
    assert "<img" in detector(path, threshold=0)._repr_html_()
