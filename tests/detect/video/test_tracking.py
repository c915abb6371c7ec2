"""Objects keep their number through a video."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from deformable_detr import Detections
from deformable_detr.detect.video.tracking import Tracker, faint

SIZE = (100, 200)


@pytest.fixture(autouse=True)
def _needs_trackers() -> None:
    pytest.importorskip("trackers", reason="needs the extra video-track", exc_type=ImportError)


def detections(*found: tuple[float, float, float, int]) -> Detections:
    """Squares of 20 pixels at (x, y), with a score and a label."""
    boxes = np.array([(x, y, x + 20, y + 20) for x, y, *_ in found], dtype=np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([each[2] for each in found], dtype=np.float32),
                      np.array([each[3] for each in found], dtype=np.int64), ["fish"] * len(found), SIZE)


def crossing(scores: Iterator[float] | None = None) -> Iterator[Detections]:
    """Two objects that pass each other, in changing order, and come near."""
    for index in range(40):
        score = 0.9 if scores is None else next(scores)
        pair = [(4.0 * index, 30.0, 0.8, 0), (160 - 4.0 * index, 55.0, score, 0)]
        yield detections(*(pair if index % 2 else pair[::-1]))


def test_two_objects_keep_their_numbers() -> None:
    tracker = Tracker(0.5, 25)
    seen: dict[float, set[int]] = {30.0: set(), 55.0: set()}
    for index, found in enumerate(crossing()):
        tracked = tracker.update(found, index / 25)
        assert tracked.tracks is not None
        np.testing.assert_array_equal(tracked.boxes, found.boxes)      # in their order, and as they were found
        for box, track in zip(tracked.boxes, tracked.tracks, strict=True):
            if index:
                seen[float(box[1])].add(int(track))
    assert [len(tracks) for tracks in seen.values()] == [1, 1]
    assert seen[30.0] != seen[55.0]
    assert all(track >= 0 for tracks in seen.values() for track in tracks)


def test_a_faint_object_keeps_its_number_and_is_not_shown_meanwhile() -> None:
    tracker = Tracker(0.5, 25)
    scores = iter([0.9] * 10 + [0.2] * 20 + [0.9] * 10)
    tracks = [tracker.update(found, index / 25) for index, found in enumerate(crossing(scores))]
    assert [len(found) for found in tracks] == [2] * 10 + [1] * 20 + [2] * 10
    second = {int(found.tracks[row]) for found in tracks[1:] if found.tracks is not None
              for row in range(len(found)) if found.boxes[row, 1] == 55}
    assert len(second) == 1


def test_nothing_found_and_lost_objects() -> None:
    tracker = Tracker(0.5, 25)
    assert len(tracker.update(detections(), 0)) == 0
    here = detections((50, 50, 0.9, 1))
    before = [tracker.update(here, (index + 1) / 25) for index in range(3)][-1]
    for index in range(100):
        empty = tracker.update(detections(), (index + 4) / 25)
        assert empty.tracks is not None
        assert len(empty) == 0
    after = [tracker.update(here, (index + 200) / 25) for index in range(3)][-1]
    assert before.tracks is not None
    assert after.tracks is not None
    assert before.tracks[0] != after.tracks[0]


@pytest.mark.parametrize("rate", [0.2, 3, 120])
def test_any_rate(rate: float) -> None:
    tracker = Tracker(0.5, rate)
    seen = [tracker.update(detections((50 + index, 50, 0.9, 1)) if index != 5 else detections(), index / rate)
            for index in range(10)]
    assert [found.tracks.tolist() for found in seen if found.tracks is not None] == [[-1], *[[0]] * 4, [], *[[0]] * 4]


def test_times_that_stand_still() -> None:
    """Warnings are errors here."""
    tracker = Tracker(0.5, 25)
    for seconds in (0.0, 0.0, None, None, 0.01):
        tracked = tracker.update(detections((50, 50, 0.9, 1)), seconds)
    assert tracked.tracks is not None
    assert tracked.tracks.tolist() == [0]


def test_tracks_travel_with_the_detections() -> None:
    tracker = Tracker(0.1, 25)
    tracker.update(detections((50, 50, 0.9, 1), (100, 50, 0.8, 0)), 0)
    tracked = tracker.update(detections((50, 50, 0.9, 1), (100, 50, 0.8, 0), (150, 10, 0.3, 0)), 0.04)
    assert tracked.tracks is not None
    assert tracked.tracks.tolist() == [0, 1, -1]
    assert tracked[1:].to_dict()["detections"][0]["track"] == 1
    assert tracked.to_dict()["detections"][2]["track"] is None
    assert "track" not in detections((50, 50, 0.9, 1)).to_dict()["detections"][0]
    assert tracked.to_supervision().tracker_id.tolist() == [0, 1, -1]  # pyright: ignore
    drawn, plain = (np.asarray(each.draw(np.zeros((*SIZE, 3), dtype=np.uint8)))
                    for each in (tracked, detections((50, 50, 0.9, 1), (100, 50, 0.8, 0), (150, 10, 0.3, 0))))
    assert (drawn != plain).any()


def test_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faint(0.5) == 0.1
    assert faint(0.05) == 0.05
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ImportError):
        Tracker(0.5)
