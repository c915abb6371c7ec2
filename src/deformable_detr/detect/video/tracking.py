"""Which object of a frame is which of the frames before: ByteTrack (arXiv 2110.06864), from the library `trackers`."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from deformable_detr.detections import Detections, Threshold

FAINT = 0.1     # score of detections that only continue a track, as published
SECONDS_LOST = 1.0      # for which an object that is not seen keeps its number, as published
FRAMES_LOST = 3         # where these are more
THEIR_RATE = 30         # frames a second, in which `trackers` counts that time


class Tracker:
    """Numbers the objects of one video.

    `update` wants all detections with a score of at least `faint`: those below `threshold` keep a track alive while its
    object is hard to see, and are not returned. `rate` is how many frames a second there are. Raises ImportError where
    `trackers` is not installed.
    """

    def __init__(self, threshold: Threshold, rate: Fraction | float = 30) -> None:
        from trackers import ByteTrackTracker

        self.threshold = threshold
        self._rate = float(rate)
        self._seconds = 0.0
        lowest = float(np.min(threshold))
        # Their thresholds are for scores near 1. Here whoever chose `threshold` has said what counts as found.
        seconds_lost = max(SECONDS_LOST, FRAMES_LOST / self._rate)
        self._tracker = ByteTrackTracker(lost_track_buffer=round(seconds_lost * THEIR_RATE), frame_rate=self._rate,
                                         track_activation_threshold=lowest, high_conf_det_threshold=lowest)

    def update(self, found: Detections, seconds: float | None = None) -> Detections:
        """The detections of the next frame that are above the threshold, with their `tracks`."""
        earliest = self._seconds + 1e-6     # time must not stand still
        self._seconds = max(earliest, self._seconds + 1 / self._rate if seconds is None else seconds)
        rows = found.to_supervision()
        rows.data["row"] = np.arange(len(found))
        tracked = self._tracker.update(rows, timestamp=self._seconds)
        tracks = np.full(len(found), -1, dtype=np.int64)
        if tracked.tracker_id is not None and len(tracked):
            tracks[np.asarray(tracked.data["row"], dtype=np.int64)] = tracked.tracker_id
        return replace(found, tracks=tracks).above(self.threshold)


def faint(threshold: Threshold) -> Threshold:
    """The lowest score that a tracker wants, of detections that are shown from `threshold` on."""
    if isinstance(threshold, np.ndarray):
        return np.where(threshold > 1, threshold, np.minimum(FAINT, threshold))
    return min(FAINT, threshold)
