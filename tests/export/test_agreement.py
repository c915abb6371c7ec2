"""Exported files in their runtimes beside PyTorch: outputs, batches, the best detections, fixed sizes, raw forms."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deformable_detr import Detector, ImageBatch
from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.detect.exported import ExportedRuntime
from deformable_detr.export import Form, Limits
from deformable_detr.export.cases import cases
from deformable_detr.export.graph import DETECTIONS, RAW_OUTPUTS, BestDetections, DetectorGraph
from deformable_detr.export.metadata import read_metadata
from deformable_detr.export.program import detector_graph
from deformable_detr.export.proof import Difference, compare
from deformable_detr.export.sessions import open_session
from deformable_detr.preprocessing import normalised, resize_image
from deformable_detr.structures import Predictions
from helpers.export_files import FORMS, INFO, SIZE, noise
from helpers.models import small_model

FREE = ("free.onnx", "free.xml")
PICTURES = [noise(60, 45), noise(40, 80), noise(64, 64)]


def free_graph(exported_files: Path) -> DetectorGraph:
    return detector_graph(Detector(exported_files / "tiny.safetensors", "cpu").model, INFO.preprocessing, Form())


@pytest.mark.parametrize("name", FREE)
def test_any_batch_and_size(exported_files: Path, name: str) -> None:
    session, graph = open_session(exported_files / name, "cpu"), free_graph(exported_files)
    found = [compare(session, graph, case) for case in cases(PICTURES, INFO.preprocessing, Form())]
    assert len(found) == 7
    for each in found:
        assert each.is_within(Limits()), str(each)


@pytest.mark.parametrize("name", FREE)
def test_unequal_images_in_a_batch_are_as_one_by_one(exported_files: Path, name: str) -> None:
    """Each padded to the same shape, what it is together with does not matter."""
    session = open_session(exported_files / name, "cpu")
    shapes = [(64, 90), (50, 96), (33, 41)]
    images = np.full((3, 3, 64, 96), 255, np.uint8)     # outside of an image is whatever is there
    for row, (height, width) in zip(images, shapes, strict=True):
        row[:, :height, :width] = noise(height, width).transpose(2, 0, 1)
    sizes = np.array(shapes)
    together = session.run(images, sizes)
    for index in range(3):
        alone = session.run(images[index:index + 1], sizes[index:index + 1])
        boxes = [cxcywh_to_xyxy(torch.from_numpy(found["pred_boxes"].copy()))[place].numpy() * 96
                 for found, place in ((together, index), (alone, 0))]
        np.testing.assert_allclose(boxes[0], boxes[1], rtol=0, atol=0.1)
        np.testing.assert_allclose(together["logits"][index], alone["logits"][0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [*FREE, "detr.onnx"])
def test_the_best_detections_are_those_of_predictions(exported_files: Path, name: str) -> None:
    """Also DETR's, for which a query has one class, by softmax."""
    session = open_session(exported_files / name, "cpu")
    found = session.run(noise(2 * SIZE[0], SIZE[1]).reshape(2, *SIZE, 3).transpose(0, 3, 1, 2).copy(),
                        np.array([SIZE, (40, 80)]))
    predictions = Predictions(torch.from_numpy(found["logits"].copy())[None],
                              torch.from_numpy(found["pred_boxes"].copy())[None], no_object=name == "detr.onnx")
    top_k = found["scores"].shape[1]
    assert top_k == (5 if name == "detr.onnx" else 60)
    for index, right in enumerate(predictions.detections([(1, 1), (1, 1)], top_k)):
        clear = np.concatenate([[1], np.diff(right.scores)]) < -1e-6      # of equal scores either may come first
        clear &= np.concatenate([clear[1:], [True]])
        np.testing.assert_allclose(found["scores"][index], right.scores, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found["labels"][index][clear], right.labels[clear])
        np.testing.assert_allclose(found["boxes"][index][clear], right.boxes[clear].clip(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["detr", "two-stage"])
def test_a_fixed_batch_is_filled_and_a_fixed_size_padded(exported_files: Path, name: str) -> None:
    runtime = ExportedRuntime(exported_files / f"{name}.onnx", "cpu")
    form = FORMS[name]
    graph = detector_graph(small_model(name), INFO.preprocessing, replace(form, raw=True))
    resized = [resize_image(picture, runtime.info.preprocessing) for picture in PICTURES]
    found = runtime.run(ImageBatch.from_images(
        [normalised(image, runtime.info.preprocessing) for image in resized]))
    images = torch.zeros(3, 3, *SIZE)
    for row, image in zip(images, resized, strict=True):
        row[:, :image.shape[1], :image.shape[2]] = normalised(image, INFO.preprocessing)
    sizes = torch.tensor([image.shape[1:] for image in resized])
    with torch.no_grad():
        logits, boxes = graph(images, sizes)[:2]
    assert found.no_object == (name == "detr")
    torch.testing.assert_close(found.logits[-1], logits, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.boxes[-1], boxes, rtol=0, atol=1e-3)


def test_an_image_that_does_not_fit_becomes_smaller(exported_files: Path) -> None:
    detector = Detector(exported_files / "detr.onnx", "cpu")
    assert detector.batch_size == 2
    for shape in ((300, 40), (40, 300), SIZE, (64, 96), (1, 1), (97, 96)):
        height, width = detector.prepare(noise(*shape)).shape
        assert height <= SIZE[0]
        assert width <= SIZE[1]
        found = detector(noise(*shape), threshold=0)
        assert found.image_size == shape
        assert 0 < len(found) <= 11
    assert len(detector([noise(30, 40)] * 3, threshold=0)) == 3


@pytest.mark.parametrize("name", FREE)
def test_threads_get_their_own_results(exported_files: Path, name: str) -> None:
    detector, images = Detector(exported_files / name, "cpu"), [noise(40 + 4 * index, 60) for index in range(4)]
    expected = [detector(image, threshold=0).scores for image in images]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(8):
            found = threads.map(lambda image: detector(image, threshold=0).scores, images)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


class Changed:
    """A runtime that answers as the graph does, but for the edges of the box of one rank."""

    def __init__(self, graph: DetectorGraph, rank: int | None = None) -> None:
        self.graph, self.rank, self.metadata = graph, rank, None

    def run(self, images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            values = self.graph(torch.from_numpy(images), torch.from_numpy(sizes))
        found = {name: value.numpy() for name, value in zip((*RAW_OUTPUTS, *DETECTIONS), values, strict=True)}
        if self.rank is not None:
            found["boxes"][:, self.rank] += 0.5
        return found


@pytest.mark.parametrize("top_k", [1, 2, 60, 1000])
def test_the_best_detections_are_compared_however_many_there_are(exported_files: Path, top_k: int) -> None:
    graph = free_graph(exported_files)
    graph.best = BestDetections(top_k)
    case = next(cases(PICTURES, INFO.preprocessing, Form()))
    assert compare(Changed(graph), graph, case) == Difference(str(case), 0, 0, 0)
    for rank in {0, min(top_k, 2) - 1}:
        assert compare(Changed(graph, rank), graph, case).pixels > 1


def test_pictures_are_read_one_after_the_other() -> None:
    """Thousands of them need no memory."""
    read: list[int] = []

    def pictures() -> Iterator[np.ndarray]:
        for index in range(10):
            read.append(index)
            yield noise(40 + index, 60)

    compared = cases(pictures(), INFO.preprocessing, Form(batch=2))
    next(compared)
    assert read == [0, 1]
    assert len(list(compared)) == 9
    assert len(list(cases(pictures(), INFO.preprocessing, Form(batch=20)))) == 2
    assert len(list(cases(pictures(), INFO.preprocessing, Form()))) == 21


def test_a_raw_form_takes_normalised_pixels_and_gives_no_detections(exported_files: Path) -> None:
    session = open_session(exported_files / "two-stage.onnx", "cpu")
    found = session.run(np.zeros((2, 3, *SIZE), np.float32), np.array([SIZE, SIZE]))
    assert list(found) == ["logits", "pred_boxes", "chosen"]
    assert found["logits"].shape == (2, 11, 3)
    assert found["chosen"].shape == (2, 11)


@pytest.mark.parametrize("name", [*FREE, "detr.onnx", "two-stage.onnx"])
def test_a_file_says_what_it_is(exported_files: Path, name: str) -> None:
    config, info, form = read_metadata(open_session(exported_files / name, "cpu").metadata)
    assert info == INFO
    assert form == FORMS.get(Path(name).stem, Form())
    assert config.num_classes == 3
