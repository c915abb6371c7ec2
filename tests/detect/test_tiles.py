"""Windows of large images: where they lie, that cut objects give way to whole ones, and that nothing is found twice."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from deformable_detr import Detections, Detector
from deformable_detr.cli import main
from deformable_detr.detect.tiles import Tiling, merged, tiling_of

SIZE = (100, 200)       # height and width
WINDOWS = [(0, 0, 100, 100), (80, 0, 180, 100), (100, 0, 200, 100)]


def found(*rows: tuple[list[float], float, int], size: tuple[int, int] = SIZE) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32),
                      np.array(labels, np.int64), [f"class {label}" for label in labels], size)


@pytest.mark.parametrize("image_size", [(480, 1000), (1000, 480), (481, 480), (2000, 3001), (100, 5000)])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.9])
def test_windows_cover_the_image(image_size: tuple[int, int], overlap: float) -> None:
    windows = Tiling(480, overlap).windows(image_size)
    seen = np.zeros(image_size, bool)
    for left, top, right, bottom in windows:
        seen[top:bottom, left:right] = True
    assert seen.all()
    assert {(bottom - top, right - left) for left, top, right, bottom in windows} == {
        (min(480, image_size[0]), min(480, image_size[1]))}
    lefts = sorted({left for left, *_ in windows})
    assert all(after - before <= 480 * (1 - overlap) + 1 for before, after in pairwise(lefts))


@pytest.mark.parametrize("image_size", [(480, 480), (1, 1), (480, 10)])
def test_a_small_image_has_no_windows(image_size: tuple[int, int]) -> None:
    assert Tiling(480).windows(image_size) == []


@pytest.mark.parametrize(("size", "overlap", "message"), [
    (31, 0.2, "expected windows of at least 32 pixels, got 31"), (480, 1.0, "expected a share from 0 to 0.9"),
    (480, -0.1, "expected a share from 0 to 0.9"), (480, float("nan"), "expected a share from 0 to 0.9")])
def test_windows_that_cannot_be(size: int, overlap: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tiling(size, overlap)


def test_what_a_tile_may_be() -> None:
    assert tiling_of(None, 480) is tiling_of(False, 480) is None
    assert tiling_of(True, 480) == tiling_of(480, 800) == Tiling(480)
    assert tiling_of(Tiling(64, 0.5), 480) == Tiling(64, 0.5)


def test_one_object_in_two_windows_is_found_once() -> None:
    inner = ([85, 10, 95, 20], 0.9, 1), ([5, 10, 15, 20], 0.8, 1)
    together = merged(found(), WINDOWS, [found(inner[0]), found(inner[1]), found()], 10)
    assert together.boxes.tolist() == [[85, 10, 95, 20]]
    assert together.scores.tolist() == [pytest.approx(0.9)]


def test_classes_do_not_hide_each_other() -> None:
    first, second = found(([85, 10, 95, 20], 0.9, 1)), found(([5, 10, 15, 20], 0.8, 2))
    together = merged(found(), WINDOWS, [first, second, found()], 10)
    assert together.labels.tolist() == [1, 2]


def test_a_whole_object_is_preferred_to_its_parts() -> None:
    """An object from 60 to 120 is cut by the first window, whose part has the better score."""
    part, whole = ([60, 10, 100, 50], 0.95, 0), ([0, 10, 40, 50], 0.5, 0)
    together = merged(found(([60, 10, 120, 50], 0.6, 0)), WINDOWS, [found(part), found(whole), found()], 10)
    assert together.boxes.tolist() == [[60, 10, 120, 50]]


def test_a_part_remains_where_there_is_no_whole() -> None:
    part = ([60, 10, 100, 50], 0.95, 0)
    assert len(merged(found(), WINDOWS, [found(part), found(), found()], 10)) == 1


def test_an_edge_of_the_image_cuts_nothing() -> None:
    """The small object in the corner lies within the box of another of its class."""
    corner = ([0, 0, 10, 10], 0.5, 0)
    assert len(merged(found(([0, 0, 60, 60], 0.9, 0)), WINDOWS, [found(corner), found(), found()], 10)) == 2


def test_the_best_are_kept() -> None:
    rows = [([10 * index, 0, 10 * index + 5, 5], index / 10, 0) for index in range(1, 8)]
    together = merged(found(*rows), WINDOWS, [found(), found(), found()], 3)
    assert together.scores.tolist() == pytest.approx([0.7, 0.6, 0.5])
    assert len(merged(found(), WINDOWS, [found(), found(), found()], 3)) == 0


@pytest.fixture
def scene() -> np.ndarray:
    """A photograph in the middle of a window of a large, empty picture."""
    with PIL.Image.open(Path(__file__).parents[2] / "src/deformable_detr/assets/pictures/penguin.jpg") as file:
        penguin = np.asarray(file.convert("RGB"))
    image = np.full((600, 1400, 3), 90, np.uint8)
    image[40:40 + penguin.shape[0], 60:60 + penguin.shape[1]] = penguin
    return image


def test_an_object_within_a_window_is_found_as_in_that_window(scene: np.ndarray) -> None:
    tiling = Tiling(600, 0.2)
    left, top, right, bottom = tiling.windows(scene.shape[:2])[0]
    alone = Detector("demo")(scene[top:bottom, left:right], threshold=0.4)
    tiled = Detector("demo", tile=tiling)(scene, threshold=0.4)
    assert len(alone) > 0
    for box in alone.boxes:
        assert np.abs(tiled.boxes - box).max(1).min() < 0.05
    assert tiled.image_size == (600, 1400)
    assert tiled.queries is None


def test_a_stream_is_tiled_too(scene: np.ndarray) -> None:
    detector = Detector("demo", tile=True)
    alone = detector(scene, threshold=0.4)
    for result in detector.stream([scene, scene], threshold=0.4):
        assert isinstance(result, Detections)
        assert np.allclose(result.boxes, alone.boxes, atol=0.05)


def test_an_image_that_fits_is_what_it_was(scene: np.ndarray) -> None:
    plain, tiled = (Detector("demo", tile=tile)(scene[:480, :480], threshold=0.3) for tile in (None, 480))
    assert np.array_equal(plain.boxes, tiled.boxes)


def test_the_command_takes_tiles(scene: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PIL.Image.fromarray(scene).save(tmp_path / "a.png")
    found = []
    for flags in ([], ["--tiles"], ["--tile-size", "600"]):
        assert main(["detect", str(tmp_path / "a.png"), "--json", "--threshold", "0.4", *flags]) == 0
        found.append(len(json.loads(capsys.readouterr().out)["detections"]))
    assert found[0] <= min(found[1:])
    assert max(found) > 0
    assert main(["detect", str(tmp_path / "a.png"), "--json", "--tile-size", "10"]) == 2
    assert "expected windows of at least 32 pixels, got 10" in capsys.readouterr().err
