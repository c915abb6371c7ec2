"""Videos: frames in, drawn frames out, and which object of a frame is the same as one before."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.detect.video.errors import VideoError
    from deformable_detr.detect.video.reading import BrokenFrame, Frame, Video
    from deformable_detr.detect.video.tracking import Tracker
    from deformable_detr.detect.video.writing import VideoWriter

__all__ = ["BrokenFrame", "Frame", "Tracker", "Video", "VideoError", "VideoWriter"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.detect.video.errors": "VideoError",
    "deformable_detr.detect.video.reading": "BrokenFrame Frame Video",
    "deformable_detr.detect.video.tracking": "Tracker",
    "deformable_detr.detect.video.writing": "VideoWriter",
})
