"""The flags of `ddetr train` that are fields of a model's config or of the recipe: None where a flag is not given.

They repeat the fields of `papers` and of `training/recipe.py`, so that no flag costs an import of torch; a test
compares them. A flag that the chosen preset's paper does not have is an error.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from deformable_detr.training.recipe import Flip, Recipe, Tracker


@dataclass(frozen=True)
class ModelFlags:
    """The fields of all papers' configs, but for the number of classes, which the data decides.

    Attributes:
        backbone: Any timm model with features at strides 8, 16 and 32.
        dilation: DC5: the last stage of the backbone keeps stride 16.
        width: Channels of a token; a multiple of num_heads.
        num_heads: Heads of each attention layer.
        num_encoder_layers: Layers of the encoder.
        num_decoder_layers: Layers of the decoder.
        ffn_width: Hidden channels of the feed-forward networks.
        dropout: From 0 to below 1.
        num_queries: The most objects that can be found in an image.
        num_levels: Feature maps; 1 uses the coarsest only, above 3 further ones are convolved.
        num_points: Points that a head samples on each level.
        refine: Each decoder layer moves the boxes of the one before (section 4.2).
        two_stage: The encoder proposes the boxes to start from (section 4.2); needs refine.
        mixed_queries: A proposal gives a query its position only, its content is learned (DINO); needs two_stage.
        look_forward_twice: A layer's box loss trains the layer before it too (DINO); needs refine.
        num_maps: Maps taken from the backbone of DINO; 4 begin at stride 4.
    """

    backbone: str | None = None
    dilation: bool | None = None
    width: int | None = None
    num_heads: int | None = None
    num_encoder_layers: int | None = None
    num_decoder_layers: int | None = None
    ffn_width: int | None = None
    dropout: float | None = None
    num_queries: int | None = None
    num_levels: int | None = None
    num_points: int | None = None
    refine: bool | None = None
    two_stage: bool | None = None
    mixed_queries: bool | None = None
    look_forward_twice: bool | None = None
    num_maps: int | None = None


@dataclass(frozen=True)
class RecipeFlags:
    epochs: int | None = None
    batch_size: int | None = None
    total_batch: int | None = None
    learning_rate: float | None = None
    backbone_learning_rate: float | None = None
    slow_factor: float | None = None
    weight_decay: float | None = None
    clip_norm: float | None = None
    schedule: Literal["step", "cosine", "linear", "constant"] | None = None
    drop_epoch: int | None = None
    warmup_steps: int | None = None
    class_weight: float | None = None
    box_weight: float | None = None
    giou_weight: float | None = None
    class_target: Literal["hard", "iou"] | None = None
    proposal_repeats: int | None = None
    denoising_queries: int | None = None
    augmentation: Literal["published", "small", "strong"] | None = None
    plain_epochs: int | None = None
    flip: Flip | None = None
    quarter_turns: bool | None = None
    repeat_threshold: float | None = None
    precision: Literal["no", "bf16", "fp16"] | None = None
    ema_decay: float | None = None
    patience: int | None = None
    freeze: tuple[str, ...] | None = None
    recompute: bool | None = None
    shard: bool | None = None
    deterministic: bool | None = None
    save_steps: int | None = None
    num_workers: int | None = None
    trackers: tuple[Tracker, ...] | None = None
    seed: int | None = None


RecipeFlags.__doc__ = Recipe.__doc__   # it describes the same fields


def given(flags: ModelFlags | RecipeFlags | None) -> dict[str, Any]:
    """The flags that were given, with their values; several words may come in one, with commas between them."""
    values = {name: value for name, value in asdict(flags).items() if value is not None} if flags else {}
    return {name: tuple(part for word in value for part in word.split(",")) if isinstance(value, tuple) else value
            for name, value in values.items()}
