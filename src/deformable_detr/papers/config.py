"""What the configs of all papers share: common sizes, presets by name, and one clear error for a wrong field."""

from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

Preset = Literal["single-scale", "single-scale-dc5", "multi-scale", "refine", "two-stage", "detr", "detr-dc5",
                 "dab-detr", "dab-detr-dc5", "dab-deformable-detr", "dino-4scale", "dino-5scale"]     # of all papers
NO_PROPOSED_BOXES = ("the queries of this detector do not start from proposed boxes (those of a two-stage "
                     "detector do)")
NO_SAMPLING = "nothing is sampled whose places would have to be learned slowly"
GROUPS = 32     # of the group norm after each projection of a pyramid

COUNTS = ("num_heads", "num_encoder_layers", "num_decoder_layers", "ffn_width", "num_queries", "num_classes", "width")


@dataclass(frozen=True, repr=False)
class Config:
    """The sizes that every detector of the family has.

    Raises ValueError for a value that no detector can be built from.

    Attributes:
        backbone: Any timm model with features at strides 8, 16 and 32.
        dilation: DC5: the last stage keeps stride 16.
        width: Channels of a token, C; a multiple of num_heads.
        num_heads: M.
        num_encoder_layers: Layers of the encoder.
        num_decoder_layers: Layers of the decoder.
        ffn_width: Hidden channels of the feed-forward networks.
        dropout: In [0, 1).
        num_queries: Q, the most objects that can be found.
        num_classes: K.
    """

    paper: ClassVar[str]                                    # by which a file of weights names the config's class
    presets: ClassVar[dict[Preset, dict[str, Any]]]         # the published detectors: what differs from the defaults
    recipe: ClassVar[dict[str, Any]]                        # how it was trained: what differs from a recipe's defaults
    papers: ClassVar[dict[str, type["Config"]]] = {}        # every class of configs, by its paper

    backbone: str = "resnet50"
    dilation: bool = False
    width: int = 256
    num_heads: int = 8
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    ffn_width: int = 1024
    dropout: float = 0.1
    num_queries: int = 300
    num_classes: int = 91

    def __init_subclass__(cls) -> None:
        if "paper" in cls.__dict__:
            Config.papers[cls.paper] = cls

    @staticmethod
    def preset(name: str, **changes: Any) -> "Config":
        """The config of a published detector of any paper, with `changes` to its fields.

        Raises ValueError for an unknown preset or field.
        """
        published: dict[str, tuple[type[Config], dict[str, Any]]] = {
            preset: (config, values) for config in Config.papers.values() for preset, values in config.presets.items()}
        if name not in published:
            raise ValueError(f"preset: expected one of {', '.join(published)}, got {name!r}{_suggest(name, published)}")
        config, values = published[name]
        return config.with_fields({**values, **changes})

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Config":
        """The config that `to_dict` wrote; files from before there were several papers name none."""
        paper = values.get("paper", "deformable-detr")
        if paper not in Config.papers:
            raise ValueError(f"paper: expected one of {', '.join(Config.papers)}, got {paper!r:.100}")
        return Config.papers[paper].with_fields({name: value for name, value in values.items() if name != "paper"})

    @classmethod
    def with_fields(cls, values: dict[str, Any]) -> "Config":
        """A config of this paper; an unknown field is a ValueError with a suggestion, another paper's says so."""
        known = [field.name for field in fields(cls)]
        others = {field.name for config in Config.papers.values() for field in fields(config)} - set(known)
        for name in values:
            if name in others:
                raise ValueError(f"{name}: has no meaning for {cls.paper}")
            if name not in known:
                raise ValueError(f"model config: unknown field {name!r}{_suggest(name, known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The paper and the fields, for a file."""
        return {"paper": self.paper, **asdict(self)}

    def __repr__(self) -> str:
        """The call that makes it: the nearest preset, and what differs from it."""
        preset, changes = min(((name, self._changes(values)) for name, values in self.presets.items()),
                              key=lambda each: len(each[1]))
        arguments = [repr(preset), *(f"{name}={value!r}" for name, value in changes.items())]
        return f"{type(self).__name__}.preset({', '.join(arguments)})"

    def _changes(self, preset: dict[str, Any]) -> dict[str, Any]:
        """The fields that differ from a preset's."""
        return {part.name: getattr(self, part.name) for part in fields(self)
                if getattr(self, part.name) != preset.get(part.name, part.default)}

    @property
    def finest_stride(self) -> int:
        """Pixels of an image's side to one of the finest feature map."""
        return 16 if self.dilation else 32

    @property
    def starts_from_boxes(self) -> bool:
        """Whether queries start from proposed boxes, so that training can add noisy ones (denoising)."""
        return False

    @property
    def meaningless(self) -> dict[str, tuple[Any, str]]:
        """Settings of a recipe that mean nothing for this detector: the value that each must have, and why."""
        if self.starts_from_boxes:
            return {}
        return {"denoising_queries": (0, NO_PROPOSED_BOXES),
                "proposal_repeats": (1, "this detector makes no proposals (a two-stage detector does)")}

    def __post_init__(self) -> None:
        self._check_types()
        self._check_counts(COUNTS)
        if self.width % self.num_heads:
            raise ValueError(f"width: expected a multiple of num_heads ({self.num_heads}), got {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a value in [0, 1), got {self.dropout}")

    def _check_counts(self, names: tuple[str, ...]) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def _check_types(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            accepted = (int, float) if field.type is float else field.type
            if not isinstance(value, accepted) or (isinstance(value, bool) and field.type is not bool):  # type: ignore[arg-type]
                raise ValueError(f"{field.name}: expected {field.type.__name__}, got {value!r}")  # type: ignore[union-attr]


@dataclass(frozen=True, repr=False)
class DeformableConfig(Config):
    """The sizes that every detector with deformable attention has.

    Attributes:
        num_levels: L; 1 uses the coarsest map only, above 3 further maps are convolved.
        num_points: P, that a head samples on each level.
    """

    num_levels: int = 4
    num_points: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts(("num_levels", "num_points"))
        if self.width % GROUPS:
            raise ValueError(f"width: expected a multiple of {GROUPS} (group norm), got {self.width}")

    @property
    def finest_stride(self) -> int:
        """Pixels of an image's side to one of the finest feature map."""
        return (8, 16, 16 if self.dilation else 32)[-min(self.num_levels, 3)]


def _suggest(name: str, known: Any) -> str:
    matches = get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
