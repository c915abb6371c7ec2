"""Images in, detections out."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.detect.detector import Detector

__all__ = ["Detector"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.detect.detector": "Detector",
})
