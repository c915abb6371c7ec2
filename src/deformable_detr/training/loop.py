"""The training, top to bottom: for every epoch, learn from each batch, evaluate, write down."""

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from deformable_detr.data import build_loader
from deformable_detr.data.coco import CocoDataset
from deformable_detr.detector import Detector
from deformable_detr.evaluation import CocoMetrics, evaluate
from deformable_detr.model import DeformableDETR
from deformable_detr.progress import show_progress
from deformable_detr.structures import Predictions, Target, to_device
from deformable_detr.training.losses import SetLoss
from deformable_detr.training.matching import NonFiniteError
from deformable_detr.training.recipe import Recipe, build_optimizer
from deformable_detr.training.run_folder import RunFolder
from deformable_detr.training.validation import draw_validation
from deformable_detr.weights import ModelInfo

logger = logging.getLogger(__name__)


@dataclass
class Averages:
    """Running means of the losses of an epoch."""

    steps: int = 0
    total: float = 0.0
    parts: dict[str, float] | None = None

    def add(self, total: float, parts: dict[str, float]) -> None:
        """Take one step's losses."""
        self.steps += 1
        self.total += (total - self.total) / self.steps
        old = self.parts or parts
        self.parts = {name: old[name] + (value - old[name]) / self.steps for name, value in parts.items()}


class Training:
    """One training: a model, its data, and a recipe to bring them together.

    `train` writes everything it finds out into `folder`. Several processes started by `torchrun` or
    `accelerate launch` share the work; the first of them writes.
    """

    def __init__(self, model: DeformableDETR, info: ModelInfo, training_data: CocoDataset,
                 validation_data: CocoDataset, recipe: Recipe, folder: RunFolder) -> None:
        self.recipe, self.info, self.folder = recipe, info, folder
        self.validation_data = validation_data
        self.accelerator = Accelerator(mixed_precision=recipe.precision)
        self.loss = SetLoss(recipe.class_weight, recipe.box_weight, recipe.giou_weight)
        loader = build_loader(training_data, recipe.batch_size, training=True, seed=recipe.seed,
                              num_workers=recipe.num_workers)
        self.validation_loader = build_loader(validation_data, recipe.batch_size, training=False,
                                              num_workers=recipe.num_workers)
        self.file_names = {picture.id: picture.file_name for picture in training_data.annotations.pictures}
        self.model, self.optimizer = self.accelerator.prepare(
            model.to(self.accelerator.device), build_optimizer(model, recipe))
        self.loader: DataLoader[Any] = self.accelerator.prepare_data_loader(loader, device_placement=False)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.first_epoch, self.best_ap = 0, -1.0

    def resume(self) -> None:
        """Go on behind the last epoch that the folder holds."""
        state = self.folder.read_checkpoint()
        self.plain_model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.first_epoch, self.best_ap = state["epoch"] + 1, state["best_ap"]

    @property
    def plain_model(self) -> DeformableDETR:
        """The model without what Accelerate wraps around it."""
        return self.accelerator.unwrap_model(self.model)

    def train(self) -> CocoMetrics | None:
        """All epochs that are left; the numbers of the last one, None when none was left.

        Raises NonFiniteError, which names the picture, as soon as a loss is NaN or infinite.
        """
        metrics = None
        for epoch in range(self.first_epoch, self.recipe.epochs):
            start = time.monotonic()
            averages = self.train_epoch(epoch)
            if self.accelerator.is_main_process:
                metrics = self.evaluate(epoch)
                self.write_down(epoch, averages, metrics)
                logger.info("epoch %d/%d: loss %.3f, AP %.3f, AP50 %.3f, %.0f s", epoch + 1, self.recipe.epochs,
                            averages.total, metrics.AP, metrics.AP50, time.monotonic() - start)
            self.accelerator.wait_for_everyone()
        return metrics

    def train_epoch(self, epoch: int) -> Averages:
        """One pass over the training pictures."""
        self.model.train()
        self.loader.set_epoch(epoch)   # type: ignore[attr-defined]
        # Dropout follows from the epoch, so that a resumed run rolls the dice of an undisturbed one.
        torch.manual_seed(self.recipe.seed * 1_000_003 + epoch * 1009 + self.accelerator.process_index)
        averages = Averages()
        steps = len(self.loader)

        def status() -> str:
            return f"loss {averages.total:.3f} rate {self.optimizer.param_groups[0]['lr']:.1e}"

        title = f"epoch {epoch + 1}/{self.recipe.epochs}"
        batches = self.loader if not self.accelerator.is_main_process else show_progress(
            self.loader, steps, title, status)
        for index, (batch, targets) in enumerate(batches):
            self.set_rates(epoch * steps + index, steps)
            predictions = self.model(to_device(batch, self.accelerator.device))
            averages.add(*self.step(predictions, targets))
        return averages

    def set_rates(self, step: int, steps_per_epoch: int) -> None:
        """The learning rate of every group at this step."""
        factor = self.recipe.rate_factor(step, steps_per_epoch)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor

    def step(self, predictions: Predictions, targets: list[Target]) -> tuple[float, dict[str, float]]:
        """Learn from one batch; the losses as plain numbers."""
        try:
            losses = self.loss(predictions, targets)
            names, values = list(losses.parts), torch.stack([losses.total, *losses.parts.values()]).tolist()
            if not math.isfinite(values[0]):
                raise NonFiniteError("the loss", self.culprit(predictions, targets))
        except NonFiniteError as error:
            raise NonFiniteError(error.what, self.file_name(error.image_id)) from None
        self.optimizer.zero_grad()
        self.accelerator.backward(losses.total)
        if self.recipe.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        return values[0], dict(zip(names, values[1:], strict=True))

    def culprit(self, predictions: Predictions, targets: list[Target]) -> int | str | None:
        """The first picture whose own loss is not finite."""
        for index, target in enumerate(targets):
            if not self.loss(predictions.picture(index), [target]).total.isfinite():
                return target.image_id
        return None

    def file_name(self, image_id: int | str | None) -> int | str | None:
        """The file of a picture, where the data set knows it."""
        return self.file_names.get(image_id, image_id) if isinstance(image_id, int) else image_id

    def evaluate(self, epoch: int) -> CocoMetrics:
        """COCO numbers on the validation pictures."""
        loader = self.validation_loader
        return evaluate(self.plain_model, loader, progress=lambda batches: show_progress(
            batches, len(loader), f"epoch {epoch + 1}/{self.recipe.epochs} evaluation"))

    def write_down(self, epoch: int, averages: Averages, metrics: CocoMetrics) -> None:
        """Everything that the folder keeps of an epoch; the checkpoint last, as it says that the rest is there."""
        ap = metrics.AP if math.isfinite(metrics.AP) else 0.0
        best = ap > self.best_ap
        self.best_ap = max(ap, self.best_ap)
        self.folder.write_weights(self.plain_model, self.info, best=best)
        self.folder.add_row(epoch + 1, averages.total, averages.parts or {}, metrics)
        detector = Detector.from_model(self.plain_model, self.info)
        draw_validation(detector, self.validation_data, self.folder.path / "validation.png")
        self.folder.write_checkpoint({"model": self.plain_model.state_dict(), "epoch": epoch,
                                      "optimizer": self.optimizer.state_dict(), "best_ap": self.best_ap})
