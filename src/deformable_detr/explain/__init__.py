"""What every stage of the model saw, and where it looked."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.explain.explanation import Candidate, Explanation, Reading
    from deformable_detr.explain.recorder import Stage
    from deformable_detr.explain.tracing import trace, trace_images

__all__ = ["Candidate", "Explanation", "Reading", "Stage", "trace", "trace_images"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.explain.explanation": "Candidate Explanation Reading",
    "deformable_detr.explain.recorder": "Stage",
    "deformable_detr.explain.tracing": "trace trace_images",
})
