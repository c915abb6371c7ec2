"""What a training is asked to start from: as yet nothing is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OPEN_FIELDS = ("dropout",)  # of the config, which trained weights do not fix
PRETRAINED = "pretrained"   # in place of a file: timm fetches the backbone's own weights


@dataclass(frozen=True)
class Start:
    """What a training is asked to start from; None where nothing is asked.

    Raises ValueError for changes to fields of the model that the weights fix.
    """

    preset: str | None = None                                  # "two-stage" where none is named
    changes: Mapping[str, Any] = field(default_factory=dict)   # to the preset's fields
    weights: str | Path | None = None                          # a detector, which brings config and preprocessing
    backbone_weights: str | Path | None = None                 # a file, or "pretrained"
    size: int | None = None                                    # pixels of an image's short side
    max_size: int | None = None                                # pixels of its long side, at most
    nms_threshold: float | None = None                         # kept with the trained weights

    def __post_init__(self) -> None:
        fixed = [name for name in self.changes if name not in OPEN_FIELDS]
        if self.weights is not None and fixed:
            raise ValueError(f"weights: expected no change of {', '.join(fixed)}, since weights fix the architecture")

    @property
    def is_open(self) -> bool:
        """Whether the choice of a start is left to us."""
        return not (self.preset or self.weights or self.backbone_weights or set(self.changes) - set(OPEN_FIELDS))
