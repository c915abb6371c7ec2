"""Many images: in batches of one shape, in order, a few at a time, whatever goes wrong with one of them."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deformable_detr import Detections, Detector
from deformable_detr.detect.batches import (
    CPU_PIXELS,
    LARGEST_BATCH,
    READERS,
    THREAD_NAME,
    WINDOW,
    check_batch_size,
    fitting_batch_size,
)
from deformable_detr.detect.runtimes import TorchRuntime
from deformable_detr.images import ImageError
from deformable_detr.structures import ImageBatch, Predictions
from helpers.models import TINY_INFO, small_model

SIZES = [(60, 45), (64, 96), (31, 33), (60, 45), (64, 96), (1, 4000), (60, 45), (45, 60), (60, 45), (500, 20), (60, 45)]


def image(index: int, size: tuple[int, int] = (60, 45)) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)


IMAGES = [image(index, size) for index, size in enumerate(SIZES)]


def detector(batch_size: Any = 4, preset: str = "two-stage") -> Detector:
    return Detector.from_model(small_model(preset), TINY_INFO, batch_size=batch_size)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[ImageBatch]:
    """What was run."""
    ran: list[ImageBatch] = []
    run = TorchRuntime.run

    def watched(runtime: TorchRuntime, batch: ImageBatch) -> Predictions:
        ran.append(batch)
        return run(runtime, batch)

    monkeypatch.setattr(TorchRuntime, "run", watched)
    return ran


def detected(results: Any) -> list[Detections]:
    found = list(results)
    assert all(isinstance(each, Detections) for each in found), found
    return found


def assert_near(found: Detections, alone: Detections) -> None:
    """To 0.05 pixels; the order of equal scores may differ."""
    assert found.image_size == alone.image_size
    assert len(found) == len(alone)
    np.testing.assert_allclose(found.scores, alone.scores, rtol=0, atol=1e-4)
    for box, label, score in zip(alone.boxes, alone.labels, alone.scores, strict=True):
        same = (found.labels == label) & (np.abs(found.scores - score) < 1e-4)
        assert np.abs(found.boxes[same] - box).max(axis=1).min() <= 0.05


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


@pytest.mark.parametrize("preset", ["two-stage", "multi-scale", "detr", "dab-detr", "dino-4scale"])
@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_neighbours_change_nothing_and_the_order_stays(batch_size: Any, preset: str) -> None:
    several = detector(batch_size, preset)
    alone = [several(each, threshold=0) for each in IMAGES]
    found = several(IMAGES, threshold=0)
    assert isinstance(found, list)
    for one, single in zip(found, alone, strict=True):
        assert_near(one, single)
    for one, single in zip(detected(several.stream(iter(IMAGES), threshold=0)), alone, strict=True):
        assert_near(one, single)


def test_only_images_of_one_shape_share_a_batch(batches: list[ImageBatch]) -> None:
    detector(batch_size=3)(IMAGES)
    assert not any(batch.is_padded for batch in batches)
    assert sum(len(batch.sizes) for batch in batches) == len(IMAGES)
    assert max(len(batch.sizes) for batch in batches) == 3


def test_images_of_one_padded_shape_share_a_batch(batches: list[ImageBatch]) -> None:
    """A divisor pads an image alone just as much."""
    info = TINY_INFO.__class__(TINY_INFO.names, TINY_INFO.category_ids,
                               TINY_INFO.preprocessing.__class__(size=64, max_size=96, divisor=32))
    several = Detector.from_model(small_model(), info, batch_size=2)
    images = [image(0, (64, 80)), image(1, (64, 90))]
    found = several(images, threshold=0)
    assert [batch.sizes for batch in batches] == [((64, 80), (64, 90))]
    for one, each in zip(found, images, strict=True):
        assert_near(one, several(each, threshold=0))


def test_alternating_shapes_fill_batches(batches: list[ImageBatch]) -> None:
    detected(detector(batch_size=4).stream(image(index, [(60, 45), (45, 60)][index % 2]) for index in range(16)))
    assert [len(batch.sizes) for batch in batches] == [4, 4, 4, 4]


def test_nothing_in_nothing_out() -> None:
    assert detector()([]) == []
    assert list(detector().stream([])) == []
    assert not reading_threads()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_source_is_read_a_bounded_number_of_images_ahead(batch_size: int) -> None:
    taken = 0
    furthest = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal taken
        for index in range(60):
            taken += 1
            yield image(index, [(60, 45), (45, 60), (64, 64)][index % 3])

    for done, _ in enumerate(detector(batch_size).stream(source())):
        furthest = max(furthest, taken - done)
    assert taken == 60
    assert furthest <= WINDOW * batch_size + 1      # one image is in the consumer's hands


def test_large_images_that_wait_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deformable_detr.detect.batches.HELD_BYTES", 1)
    taken = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal taken
        for index in range(30):
            taken += 1
            yield image(index)

    results = detector(8).stream(source())
    next(results)
    assert taken <= max(READERS, 8) + 1
    assert len(list(results)) == 29


def test_a_broken_image_is_its_own_result(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    one, _, three, four, _ = results = list(detector().stream(
        [image(0), tmp_path / "broken.jpg", image(1), image(2), np.zeros((2, 2, 7, 1), dtype=np.uint8)]))
    assert len(results) == 5
    assert all(isinstance(each, Detections) for each in (one, three, four))
    assert isinstance(results[1], ImageError)
    assert "broken.jpg" in str(results[1])
    assert isinstance(results[4], ImageError)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        detector()([image(0), tmp_path / "broken.jpg"])


@pytest.mark.parametrize("error", [MemoryError("out of memory"), ValueError("predictions: expected finite")])
def test_a_failing_batch_runs_one_by_one(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    run = TorchRuntime.run
    white = np.full((60, 45, 3), 255, dtype=np.uint8)

    def fail(runtime: TorchRuntime, batch: ImageBatch) -> Predictions:
        if bool((batch.images == batch.images[:, :, :1, :1]).flatten(1).all(1).any()):
            raise error
        return run(runtime, batch)

    monkeypatch.setattr(TorchRuntime, "run", fail)
    results = list(detector(batch_size=3).stream([image(0), white, image(1)]))
    assert isinstance(results[0], Detections)
    assert results[1] is error
    assert error.__traceback__ is None      # which would keep the batch
    assert isinstance(results[2], Detections)


def test_an_exception_of_the_source_comes_after_the_results_before_it() -> None:
    def source() -> Iterator[np.ndarray]:
        yield image(0)
        yield image(1)
        raise RuntimeError("the camera is gone")

    results = detector(batch_size=8).stream(source())
    assert isinstance(next(results), Detections)
    assert isinstance(next(results), Detections)
    with pytest.raises(RuntimeError, match="the camera is gone"):
        next(results)
    assert not reading_threads()


def test_the_threads_end_with_the_iterator(tmp_path: Path) -> None:
    Image.fromarray(image(0)).save(tmp_path / "a.png")
    results = detector(batch_size=1).stream([tmp_path / "a.png"] * 50)
    next(results)
    assert reading_threads()
    results.close()
    assert not reading_threads()
    for _ in detector(batch_size=1).stream([tmp_path / "a.png"] * 50):
        break
    assert not reading_threads()


def test_an_interruption_ends_the_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object) -> Predictions:
        raise KeyboardInterrupt

    Image.fromarray(image(0)).save(tmp_path / "a.png")
    monkeypatch.setattr(TorchRuntime, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(detector(batch_size=2).stream([tmp_path / "a.png"] * 50))
    assert not reading_threads()


def test_an_error_in_the_code_is_not_taken_for_an_image_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Predictions:
        raise RuntimeError("a bug")

    monkeypatch.setattr(TorchRuntime, "run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        next(detector().stream([image(0), image(1)]))
    assert not reading_threads()


def test_a_buffer_may_be_used_again() -> None:
    """As cameras do; and a Pillow image or a file may come twice."""
    several = detector(batch_size=4)

    def frames() -> Iterator[np.ndarray]:
        buffer = np.empty_like(IMAGES[0])
        for index in range(6):
            buffer[:] = image(index)
            yield buffer

    for index, found in enumerate(detected(several.stream(frames(), threshold=0))):
        assert_near(found, several(image(index), threshold=0))
    encoded = io.BytesIO()
    Image.fromarray(image(3)).save(encoded, "PNG")
    opened = Image.open(encoded)
    for found in detected(several.stream([opened, opened, encoded.getvalue(), opened], threshold=0)):
        assert_near(found, several(image(3), threshold=0))


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "all", None])
def test_batch_sizes_that_make_no_sense(batch_size: Any) -> None:
    with pytest.raises(ValueError, match=r"batch_size: expected 'auto' or a whole number of at least 1, got"):
        check_batch_size(batch_size)
    if type(batch_size) is int:
        with pytest.raises(ValueError, match="batch_size"):
            detector(batch_size)


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="threshold: expected a value in"):
        detector().stream([], threshold=2)
    with pytest.raises(ValueError, match="top_k: expected at least 1, got 0"):
        detector().stream([], top_k=0)


def test_a_processor_gets_smaller_batches_of_larger_images() -> None:
    cpu = torch.device("cpu")
    side = int(CPU_PIXELS ** 0.5)
    assert fitting_batch_size((800, 1333), cpu) == 1
    assert fitting_batch_size((side // 2, side // 2), cpu) == 4
    assert fitting_batch_size((1, 1), cpu) == LARGEST_BATCH
