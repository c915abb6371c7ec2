"""How to train: settings with the published values, and the learning rate at each step."""

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

MAX_SEED = 2**64 - 1   # the largest that torch.manual_seed takes
MINIMUM = {"epochs": 1, "batch_size": 1, "drop_epoch": 1, "save_steps": 1, "proposal_repeats": 1}   # others: 0

Flip = Literal["horizontal", "vertical", "both", "none"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]


@dataclass(frozen=True)
class Recipe:
    """Settings of a training; the defaults are the published ones (paper, section 5 and appendix A.4).

    Raises ValueError for a value that no training can use.

    Attributes:
        epochs: Passes over the data.
        batch_size: Images that a process handles at once; halved when a GPU runs out of memory.
        total_batch: Images per optimizer step over all processes, by accumulating gradients; 0: one batch per process.
            Published: 32.
        learning_rate: Peak learning rate of AdamW.
        backbone_learning_rate: The same for the backbone.
        slow_factor: Multiplies the learning rate of sampling offsets and reference points.
        weight_decay: Weight decay of AdamW.
        clip_norm: Largest norm of the gradient; 0: no clipping.
        schedule: "step" divides the rates by 10 every drop_epoch epochs, "cosine" and "linear" fall to 0, "constant"
            keeps them.
        drop_epoch: Epochs between two drops of "step".
        warmup_steps: Steps in which the rates rise to their full value.
        class_weight: Weight of the classification loss, and of its matching cost.
        box_weight: Weight of the L1 loss, and of its matching cost.
        giou_weight: Weight of the GIoU loss, and of its matching cost.
        class_target: Target score of a matched query: "hard", 1; or "iou", the better its box fits the higher.
        proposal_repeats: Proposals matched with every object (published: 1); with more, num_queries should be that many
            times the objects in an image, or copies of some objects leave no query for the others.
        denoising_queries: Extra queries that start from noisy ground-truth boxes, for a two-stage detector; 0: none.
        augmentation: "published"; "small" for few images and small machines; "strong" for few images and many epochs.
        plain_epochs: The last epochs, in which "strong" becomes "small", so that training ends on natural images.
        flip: Mirror half of the training images: "horizontal", "vertical", "both" or "none". Use "none" where classes
            tell left from right.
        quarter_turns: Rotate training images by a random multiple of 90 degrees; for images taken from above.
        repeat_threshold: Show images with rare classes more often: a class in a share f of the images that is smaller
            comes sqrt(repeat_threshold / f) times as often (LVIS, arXiv 1908.03195); 0: each image once an epoch.
        precision: Of the forward pass: "no" for float32, "bf16" or "fp16".
        ema_decay: Evaluate and keep a moving average of the weights, which decays by this factor per step; 0: none.
        patience: Stop after this many epochs without a better AP; 0: never.
        freeze: Parts that are not trained, by the first characters of their parameters' names: backbone, encoder, ...
        recompute: Save memory: recompute the activations of the transformer layers in the backward pass.
        shard: Spread weights, gradients and optimizer state over the processes (FSDP); not with ema_decay.
        deterministic: Refuse GPU operations whose result varies from run to run.
        save_steps: Steps between two saves; each epoch is saved as well.
        num_workers: Processes that read images.
        trackers: Also log to these: tensorboard, wandb, mlflow.
        seed: Of all random numbers.
    """

    epochs: int = 50
    batch_size: int = 2
    total_batch: int = 0
    learning_rate: float = 2e-4
    backbone_learning_rate: float = 2e-5
    slow_factor: float = 0.1
    weight_decay: float = 1e-4
    clip_norm: float = 0.1
    schedule: Literal["step", "cosine", "linear", "constant"] = "step"
    drop_epoch: int = 40
    warmup_steps: int = 0
    class_weight: float = 2
    box_weight: float = 5
    giou_weight: float = 2
    class_target: Literal["hard", "iou"] = "hard"
    proposal_repeats: int = 1
    denoising_queries: int = 0
    augmentation: Literal["published", "small", "strong"] = "published"
    plain_epochs: int = 0
    flip: Flip = "horizontal"
    quarter_turns: bool = False
    repeat_threshold: float = 0.0
    precision: Literal["no", "bf16", "fp16"] = "no"
    ema_decay: float = 0.0
    patience: int = 0
    freeze: tuple[str, ...] = ()
    recompute: bool = False
    shard: bool = False
    deterministic: bool = False
    save_steps: int = 500
    num_workers: int = 2
    trackers: tuple[Tracker, ...] = ()
    seed: int = 42

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_choices()
        if self.denoising_queries == 1:
            raise ValueError("denoising_queries: expected 0 or at least 2, one near and one far from an object, got 1")
        if self.plain_epochs and self.augmentation != "strong":
            raise ValueError(f"plain_epochs: expected 0 without augmentation 'strong', got {self.plain_epochs}")
        if self.shard and self.ema_decay:
            raise ValueError("shard: expected ema_decay 0, since an average would need the whole model, "
                             f"got {self.ema_decay}")

    def _check_numbers(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed: expected 0 to {MAX_SEED}, got {self.seed}")
        for field in fields(self):
            value, least = getattr(self, field.name), MINIMUM.get(field.name, 0)
            if isinstance(value, int | float) and not (math.isfinite(value) and value >= least):
                raise ValueError(f"{field.name}: expected at least {least}, got {value}")
        if not self.ema_decay < 1:
            raise ValueError(f"ema_decay: expected less than 1, got {self.ema_decay}")
        if self.repeat_threshold > 1:
            raise ValueError(f"repeat_threshold: expected at most 1, all images, got {self.repeat_threshold}")

    def _check_choices(self) -> None:
        for field in fields(self):
            known, value = get_args(field.type), getattr(self, field.name)
            if isinstance(field.default, str) and value not in known:
                raise ValueError(f"{field.name}: expected one of {', '.join(known)}, got {value!r}")

    def accumulation(self, num_processes: int) -> int:
        """Batches of each process that make a step. Raises ValueError if `total_batch` is not a multiple."""
        together = self.batch_size * num_processes
        if self.total_batch % together:
            raise ValueError(f"total_batch: expected a multiple of batch_size x processes "
                             f"({self.batch_size} x {num_processes}), got {self.total_batch}")
        return max(1, self.total_batch // together)

    def rate_factor(self, step: int, steps_per_epoch: int) -> float:
        """The factor of the learning rates at `step`, counted from 0 over the whole training."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        total = self.epochs * steps_per_epoch
        progress = min(1.0, (step - self.warmup_steps) / max(1, total - self.warmup_steps))
        return {"step": 0.1 ** (step // steps_per_epoch // self.drop_epoch),
                "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
                "linear": 1 - progress,
                "constant": 1.0}[self.schedule]
