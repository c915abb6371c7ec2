"""How to train: settings with the published values, the optimizer and the learning rate they mean."""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from deformable_detr.papers import DeformableDETR

MOST_SEED = 2**64 - 1   # that torch.manual_seed takes


@dataclass(frozen=True)
class Recipe:
    """Settings of a training; the defaults are the published ones (paper, section 5 and appendix A.4).

    Raises ValueError for a value that no training can use.

    Attributes:
        epochs: Passes over the data.
        batch_size: Images that a process looks at together; halved where a GPU's memory does not suffice.
        total_batch: Images a step of all processes, by adding up gradients; 0 is one batch of each. Published are 32.
        learning_rate: Of AdamW.
        backbone_learning_rate: The backbone's own.
        slow_factor: On the rate of what decides where to sample: offsets and reference points.
        weight_decay: Of AdamW.
        clip_norm: The gradient's norm is clipped at this; 0 switches clipping off.
        schedule: "step" divides the rates by 10 after an epoch, "cosine" and "linear" fall to 0, "constant" stays.
        drop_epoch: The epoch of "step".
        warmup_steps: Steps over which the rates rise to their full value.
        class_weight: Of the focal loss, and of its cost in matching.
        box_weight: Of the L1 loss, and of its cost.
        giou_weight: Of the GIoU loss, and of its cost.
        class_target: The score that a matched query should have: "hard", 1; or "iou", as good as its box.
        proposal_repeats: Proposals matched with every object (published: 1); with more, num_queries should be as many
            times the objects of an image, or copies of some objects leave no query for the others.
        denoising_queries: Noisy boxes that a two-stage detector has to put right beside detecting; 0: none.
        augmentation: "published", or "small" for few images on a small machine, or "strong" for many epochs of them.
        plain_epochs: The last so many epochs of "strong" are "small", as what is detected later is no mosaic.
        precision: Of the forward pass: "no" for float32, "bf16" or "fp16".
        ema_decay: Evaluate and keep an average of the weights, with this share of the old one a step; 0: none.
        patience: Stop after so many epochs without a better AP; 0 never does.
        freeze: Parts that are not trained, by the beginnings of their parameters' names.
        recompute: Save memory: compute the layers' activations again in the backward pass.
        shard: Spread weights, gradients and the optimizer's memory over the processes (FSDP); not with ema_decay.
        deterministic: Refuse operations whose result differs from run to run, on a GPU.
        save_steps: Steps between two saves; each epoch is saved as well.
        num_workers: Processes that read images.
        trackers: Where to send the numbers too: tensorboard, wandb, mlflow.
        seed: Of all chance.
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
    precision: Literal["no", "bf16", "fp16"] = "no"
    ema_decay: float = 0.0
    patience: int = 0
    freeze: tuple[str, ...] = ()
    recompute: bool = False
    shard: bool = False
    deterministic: bool = False
    save_steps: int = 500
    num_workers: int = 2
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    seed: int = 42

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MOST_SEED:
            raise ValueError(f"seed: expected 0 to {MOST_SEED}, got {self.seed}")
        least = {"epochs": 1, "batch_size": 1, "drop_epoch": 1, "save_steps": 1, "proposal_repeats": 1}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not (math.isfinite(value) and value >= least.get(field.name, 0)):
                raise ValueError(f"{field.name}: expected at least {least.get(field.name, 0)}, got {value}")
        for name, known in {"schedule": ("step", "cosine", "linear", "constant"), "precision": ("no", "bf16", "fp16"),
                            "augmentation": ("published", "small", "strong"), "class_target": ("hard", "iou")}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.denoising_queries == 1:
            raise ValueError("denoising_queries: expected 0 or at least 2, one near and one far from an object, got 1")
        if self.plain_epochs and self.augmentation != "strong":
            raise ValueError(f"plain_epochs: expected 0 without augmentation 'strong', got {self.plain_epochs}")
        if not self.ema_decay < 1:
            raise ValueError(f"ema_decay: expected less than 1, got {self.ema_decay}")
        if self.shard and self.ema_decay:
            raise ValueError("shard: expected no ema_decay beside it, since an average would need the whole model")

    def accumulation(self, num_processes: int) -> int:
        """Batches of each process that make a step. Raises ValueError where `total_batch` is no multiple."""
        together = self.batch_size * num_processes
        if self.total_batch % together:
            raise ValueError(f"total_batch: expected a multiple of batch_size x processes "
                             f"({self.batch_size} x {num_processes}), got {self.total_batch}")
        return max(1, self.total_batch // together)

    def rate_factor(self, step: int, steps_per_epoch: int) -> float:
        """What the learning rates are multiplied by at `step`, counted from 0 over the whole training."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        total = self.epochs * steps_per_epoch
        progress = min(1.0, (step - self.warmup_steps) / max(1, total - self.warmup_steps))
        return {"step": 0.1 if step // steps_per_epoch >= self.drop_epoch else 1.0,
                "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
                "linear": 1 - progress,
                "constant": 1.0}[self.schedule]


def build_optimizer(model: "DeformableDETR", recipe: Recipe) -> "torch.optim.AdamW":
    """AdamW in three groups: most parameters, the backbone, and what decides where to sample (slowly)."""
    import torch

    from deformable_detr.model.attention import DeformableAttention
    from deformable_detr.model.queries import LearnedQueries

    slow: set[torch.nn.Parameter] = set()
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            slow.update(module.sampling_offsets.parameters())
        if isinstance(module, LearnedQueries):
            slow.update(module.reference.parameters())
    backbone = set(model.backbone.parameters())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW([
        {"params": [p for p in trained if p not in slow and p not in backbone], "lr": recipe.learning_rate},
        {"params": [p for p in trained if p in backbone], "lr": recipe.backbone_learning_rate},
        {"params": [p for p in trained if p in slow], "lr": recipe.learning_rate * recipe.slow_factor},
    ], lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
