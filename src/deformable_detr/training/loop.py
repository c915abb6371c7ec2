"""The training, top to bottom: for every epoch, learn from each step's batches, evaluate, write down."""

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice

from accelerate.utils import gather_object
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from deformable_detr.criterion.losses import SetLoss
from deformable_detr.criterion.matching import NonFiniteError
from deformable_detr.detect.detector import Detector
from deformable_detr.evaluation import CocoMetrics, detect_all
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.loader import Batch, Process, TrainingBatches, build_loader, mixed_seed
from deformable_detr.papers import DeformableDETR
from deformable_detr.progress import show_progress
from deformable_detr.training.machine import build_accelerator, freeze, gathered, recompute_activations, shard
from deformable_detr.training.recipe import Recipe, build_optimizer
from deformable_detr.training.run_folder import RunError, RunFolder, settings_of
from deformable_detr.training.state import (
    Standing,
    load_whole_state,
    prefixed,
    read_state,
    whole_state,
    without_prefix,
    write_state,
)
from deformable_detr.training.step import Step
from deformable_detr.training.validation import draw_validation
from deformable_detr.weights import ModelInfo

logger = logging.getLogger(__name__)


class Training:
    """One training: a model, its data, and a recipe to bring them together.

    `train` writes everything it finds out into `folder`. Several processes started by `torchrun` or
    `accelerate launch` share the work; the first of them writes. Raises ValueError for a recipe that the model or
    the machine cannot follow.
    """

    def __init__(self, model: DeformableDETR, info: ModelInfo, training_data: DetectionDataset,
                 validation_data: DetectionDataset, recipe: Recipe, folder: RunFolder) -> None:
        if recipe.denoising_queries and not model.config.two_stage:
            raise ValueError("denoising_queries: expected 0 without two_stage, since only a two-stage detector starts "
                             f"from boxes, got {recipe.denoising_queries}")
        self.recipe, self.info, self.folder = recipe, info, folder
        self.validation_data = validation_data
        self.accelerator = build_accelerator(recipe, folder.path)
        process = Process(self.accelerator.process_index, self.accelerator.num_processes)
        self.accumulate = recipe.accumulation(process.count)
        self.loader = build_loader(training_data, recipe.batch_size, training=True, seed=recipe.seed,
                                   num_workers=recipe.num_workers, accumulate=self.accumulate, process=process,
                                   plain_from=recipe.epochs - recipe.plain_epochs,
                                   even=recipe.shard)   # whose processes wait for each other in every batch
        self.batches: TrainingBatches = self.loader.batch_sampler  # type: ignore[assignment]
        self.validation_loader = build_loader(validation_data, recipe.batch_size, training=False,
                                              num_workers=recipe.num_workers, process=process)
        freeze(model.to(self.accelerator.device), recipe.freeze)
        self.average = AveragedModel(model, avg_fn=self.averaged).eval() if recipe.ema_decay else None
        if recipe.recompute:
            recompute_activations(model)   # behind the copy that the average is
        if recipe.shard:
            self.model = shard(model, self.accelerator)
        else:
            self.model = self.accelerator.prepare(model)
        self.optimizer = self.accelerator.prepare(build_optimizer(self.plain_model, recipe))
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.learn = Step(self.accelerator, self.model, self.optimizer,
                          SetLoss(recipe.class_weight, recipe.box_weight, recipe.giou_weight,
                                  proposal_repeats=recipe.proposal_repeats, class_target=recipe.class_target),
                          recipe.clip_norm, recipe.batch_size, training_data.annotations.images.file_name_of,
                          recipe.denoising_queries)
        self.standing = Standing()

    def begin(self, *, resume: bool = False, force: bool = False) -> None:
        """Open the run folder; with `resume`, go on where the run in it stands.

        Raises RunError where the folder does not allow it.
        """
        settings = settings_of(self.plain_model, self.info, self.recipe, self.batches.step_size)
        if resume:
            self.folder.check_same(settings, force=force)
            self.resume()
        else:
            self.folder.check_new()
        self.accelerator.wait_for_everyone()   # what one process writes, no other may take for an older run's
        if self.is_first:
            self.folder.begin(settings)
        if self.recipe.trackers:
            plain = {name: ", ".join(value) if isinstance(value, tuple) else value
                     for name, value in asdict(self.recipe).items()}
            self.accelerator.init_trackers("deformable-detr", plain)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.accelerator.is_main_process

    @property
    def plain_model(self) -> DeformableDETR:
        """The model without what Accelerate wraps around it."""
        return self.accelerator.unwrap_model(self.model)

    def answer(self) -> DeformableDETR:
        """What is evaluated and kept: the average where there is one; of a spread model the whole."""
        if self.average:
            return self.average.module  # type: ignore[return-value]
        return gathered(self.model) if self.recipe.shard else self.plain_model

    def train(self) -> CocoMetrics | None:
        """All epochs that are left; the numbers of the last one, None when none was left.

        Raises NonFiniteError, which names the image, as soon as a loss is NaN or infinite.
        Behind either the trackers and the processes' connection are closed.
        """
        metrics = None
        try:
            while self.standing.epoch < self.recipe.epochs and not self.is_hopeless:
                start = time.monotonic()
                self.train_epoch()
                answer = self.answer().eval()
                metrics = self.evaluate(answer)
                self.write_down(answer, metrics, time.monotonic() - start)
        except NonFiniteError:   # in all processes; where one has failed alone, closing would wait for it
            self.accelerator.end_training()
            raise
        self.accelerator.end_training()   # gloo's threads, still at work when Python ends, can make it abort
        return metrics

    @property
    def is_hopeless(self) -> bool:
        """Whether the AP has not risen for as many epochs as the recipe has patience."""
        return 0 < self.recipe.patience <= self.standing.epochs_since_best

    def train_epoch(self) -> None:
        """The rest of the epoch, or all of it."""
        at, steps = self.standing, self.batches.num_steps
        self.model.train()
        self.batches.set_epoch(at.epoch, at.step)

        def status() -> str:
            return f"loss {at.averages.total:.3f} rate {self.optimizer.param_groups[0]['lr']:.1e}"

        batches_left = iter(self.loader)
        together: Iterable[list[Batch]] = iter(lambda: list(islice(batches_left, self.accumulate)), [])
        if self.is_first:
            together = show_progress(together, steps - at.step, f"epoch {at.epoch + 1}/{self.recipe.epochs}", status)
        for batches in together:
            self.set_rates(at.epoch * steps + at.step, steps)
            # Dropout follows from the step, so that a resumed run rolls the dice of an undisturbed one.
            seed = mixed_seed(self.recipe.seed, at.epoch, at.step, self.accelerator.process_index)
            at.averages.add(*self.learn(batches, seed))
            if self.average:
                self.average.update_parameters(self.plain_model)
            at.step += 1
            if at.step % self.recipe.save_steps == 0 or at.step == steps:
                self.save()

    def averaged(self, old: Tensor, new: Tensor, num_steps: Tensor | int) -> Tensor:
        """The moving average of one tensor; in the first steps it follows more quickly."""
        share = min(self.recipe.ema_decay, (1 + float(num_steps)) / (10 + float(num_steps)))
        return old.lerp(new, 1 - share)

    def set_rates(self, step: int, steps_per_epoch: int) -> None:
        """The learning rate of every group at this step."""
        factor = self.recipe.rate_factor(step, steps_per_epoch)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor

    def evaluate(self, answer: DeformableDETR) -> CocoMetrics:
        """COCO numbers on the validation images, each looked at by one of the processes."""
        title = f"epoch {self.standing.epoch + 1}/{self.recipe.epochs} evaluation"
        loader = self.validation_loader
        evaluator = detect_all(answer, loader, progress=lambda batches: show_progress(
            batches, len(loader), title) if self.is_first else batches)
        if self.accelerator.num_processes > 1:
            for found in gather_object([evaluator.found]):
                evaluator.found |= found
        return evaluator.summarize()

    def write_down(self, answer: DeformableDETR, metrics: CocoMetrics, seconds: float) -> None:
        """Everything that the folder keeps of an epoch; the state last, as it says that the rest is there."""
        at = self.standing
        ap = metrics.AP if math.isfinite(metrics.AP) else 0.0
        best = ap > at.best_ap
        at.best_ap = max(ap, at.best_ap)
        at.epochs_since_best = 0 if best else at.epochs_since_best + 1
        if self.is_first:
            self.folder.write_weights(answer, self.info, best=best)
            self.folder.add_row(at.epoch + 1, at.averages.total, at.averages.parts, metrics)
            self.folder.write_validation(draw_validation(Detector.from_model(answer, self.info), self.validation_data))
            logger.info("epoch %d/%d: loss %.3f, AP %.3f, AP50 %.3f, %.0f s", at.epoch + 1, self.recipe.epochs,
                        at.averages.total, metrics.AP, metrics.AP50, seconds)
        if self.recipe.trackers:
            numbers = {name: value for name, value in asdict(metrics).items() if name != "per_class"}
            self.accelerator.log({"loss": at.averages.total, **at.averages.parts, **numbers}, step=at.epoch + 1)
        at.next_epoch()
        self.save()

    def save(self) -> None:
        """Write down where the training stands."""
        tensors = whole_state(self.plain_model, self.optimizer.optimizer)
        if self.average:
            tensors |= prefixed("average/", self.average.state_dict())
        scaler = self.accelerator.scaler
        if self.is_first:
            write_state(self.folder.state, self.standing, tensors, scaler.state_dict() if scaler else {})

    def resume(self) -> None:
        """Go on where the folder's state says. Raises RunError where it is damaged or fits another model."""
        try:
            self.standing, tensors, scaler = read_state(self.folder.state)
            load_whole_state(self.plain_model, self.optimizer.optimizer, tensors)
            if self.average:
                self.average.load_state_dict(without_prefix("average/", tensors))
        except (OSError, ValueError, RuntimeError) as error:
            raise RunError(f"{self.folder.state}: cannot be resumed ({error})") from error
        if scaler and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(scaler)
