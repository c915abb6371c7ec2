"""What kind of detector: one frozen dataclass, and the five published presets as named values."""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

GROUPS = 32   # of the group norm behind each input projection
LATER_PARTS = ("mixed_queries", "look_forward_twice", "nms_threshold")   # than those published; off by default
WITHOUT_WEIGHTS = ("dropout", "nms_threshold")   # what trained weights leave open


@dataclass(frozen=True)
class ModelConfig:
    """A detector's parts and sizes; the defaults are the published multi-scale detector (paper, section 5).

    Raises ValueError for a value that no detector can be built from.

    Attributes:
        backbone: Any timm model with features at strides 8, 16 and 32.
        dilation: DC5: the last stage keeps stride 16.
        width: Channels of a token, C; a multiple of 32 and of num_heads.
        num_heads: M.
        num_levels: L; 1 reads the coarsest map alone, beyond 3 further ones are convolved.
        num_points: P, that a head reads on each level.
        num_encoder_layers: Layers of the encoder.
        num_decoder_layers: Layers of the decoder.
        ffn_width: Hidden channels of the feed-forward networks.
        dropout: In [0, 1).
        num_queries: Q, the most objects that can be found.
        num_classes: K.
        refine: Each decoder layer moves the boxes of the one before.
        two_stage: The encoder proposes the boxes to start from; needs refine.
        mixed_queries: Proposals give a query's position alone, its content is learned (DINO); needs two_stage.
        look_forward_twice: A layer's box teaches the layer before it too (DINO, arXiv 2203.03605); needs refine.
        nms_threshold: Of two boxes of a class with a higher IoU the better one alone is a detection, where a short
            training has not taught that (as DETA, arXiv 2212.06137, does); in (0, 1], 1 keeps both.
    """

    backbone: str = "resnet50"
    dilation: bool = False
    width: int = 256
    num_heads: int = 8
    num_levels: int = 4
    num_points: int = 4
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    ffn_width: int = 1024
    dropout: float = 0.1
    num_queries: int = 300
    num_classes: int = 91
    refine: bool = False
    two_stage: bool = False
    mixed_queries: bool = False
    look_forward_twice: bool = False
    nms_threshold: float = 1.0

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "ModelConfig":
        """One of the published detectors, with `changes` to its fields.

        Raises ValueError for an unknown preset or field.
        """
        if name not in PRESETS:
            raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}{_suggest(name, PRESETS)}")
        return cls.from_dict({**PRESETS[name], **changes})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The config with these fields; an unknown one is a ValueError with a suggestion."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(f"model config: unknown field {name!r}{_suggest(name, known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields for a file; parts that no published detector has are named only where they are on."""
        return {part.name: value for part in fields(self)
                if (value := getattr(self, part.name)) != part.default or part.name not in LATER_PARTS}

    def __post_init__(self) -> None:
        self._check_types()
        for name in ("num_heads", "num_levels", "num_points", "num_encoder_layers", "num_decoder_layers",
                     "ffn_width", "num_queries", "num_classes", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.width % GROUPS or self.width % self.num_heads:
            raise ValueError(f"width: expected a multiple of {GROUPS} (group norm) and of num_heads "
                             f"({self.num_heads}), got {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a value in [0, 1), got {self.dropout}")
        if not 0 < self.nms_threshold <= 1:
            raise ValueError(f"nms_threshold: expected a value in (0, 1], got {self.nms_threshold}")
        if self.two_stage and not self.refine:
            raise ValueError("two_stage: needs refine=True, since its proposals are refined layer by layer")
        if self.mixed_queries and not self.two_stage:
            raise ValueError("mixed_queries: needs two_stage=True, since its positions are those of proposals")
        if self.look_forward_twice and not self.refine:
            raise ValueError("look_forward_twice: needs refine=True, since else no layer starts from another's boxes")

    @property
    def finest_stride(self) -> int:
        """Pixels of an image's side to one of the finest feature map."""
        return (8, 16, 16 if self.dilation else 32)[-min(self.num_levels, 3)]

    def _check_types(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            accepted = (int, float) if field.type is float else field.type
            if not isinstance(value, accepted) or (isinstance(value, bool) and field.type is not bool):  # type: ignore[arg-type]
                raise ValueError(f"{field.name}: expected {field.type.__name__}, got {value!r}")  # type: ignore[union-attr]


def _suggest(name: str, known: Any) -> str:
    matches = get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


PRESETS: dict[str, dict[str, Any]] = {
    "single-scale": {"num_levels": 1},
    "single-scale-dc5": {"num_levels": 1, "dilation": True},
    "multi-scale": {},
    "refine": {"refine": True},
    "two-stage": {"refine": True, "two_stage": True},
}
