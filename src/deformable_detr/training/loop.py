"""The training, top to bottom: for every epoch, learn from each step's batches, evaluate, write."""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Int64

from deformable_detr.criterion.denoising import Denoising
from deformable_detr.criterion.matching import NonFiniteError
from deformable_detr.detect.detector import Detector
from deformable_detr.detect.runtimes import TorchRuntime
from deformable_detr.evaluation import CocoMetrics, detect_all
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.loader import Batch, Process, TrainingBatches, build_loader, mixed_seed
from deformable_detr.loading.repeats import image_repeats
from deformable_detr.model.network import Network
from deformable_detr.papers import draw_denoising
from deformable_detr.progress import Progress, no_progress
from deformable_detr.structures import Target
from deformable_detr.training.average import moving_average
from deformable_detr.training.class_names import check_can_be_measured, warn_of_mirrored_classes
from deformable_detr.training.clock import RunClock
from deformable_detr.training.machine import freeze, gathered, raise_together, recompute_activations, shard
from deformable_detr.training.optimizer import build_loss, build_optimizer
from deformable_detr.training.recipe import Recipe
from deformable_detr.training.run_folder import RunFolder
from deformable_detr.training.state import RunStatus, TrainingState, write_state
from deformable_detr.training.step import Step
from deformable_detr.training.tensors import load_training_tensors, training_tensors
from deformable_detr.training.validation import draw_validation
from deformable_detr.weights import ModelInfo, save

logger = logging.getLogger(__name__)


class Training:
    """One training: a model, its data, and a recipe.

    `accelerator` comes from `accelerator_for`; the processes that it connects share the work, and the first of them
    writes everything into `folder`. `model` and `info` have the classes of the training data; the validation data may
    list them in another order, or only some of them. Raises ValueError for a recipe that the model or the machine
    cannot follow, and for validation data with objects of further classes.
    """

    def __init__(self, accelerator: Accelerator, model: Network, info: ModelInfo, training_data: DetectionDataset,
                 validation_data: DetectionDataset, recipe: Recipe, folder: RunFolder,
                 progress: Progress = no_progress) -> None:
        check_can_be_measured(info.names, validation_data)
        self.accelerator, self.info, self.recipe, self.folder = accelerator, info, recipe, folder
        self.training_data, self.validation_data = training_data, validation_data
        self.progress = progress if self.is_first else no_progress
        if self.is_first:
            warn_of_mirrored_classes(info.names, recipe.flip, quarter_turns=recipe.quarter_turns)
        loss = build_loss(model.config, recipe)
        self._build_loaders()
        self._prepare(model)
        self.learn = Step(accelerator, self.model, self.optimizer, loss, recipe.clip_norm, recipe.batch_size,
                          training_data.annotations.images.file_name_of, self._draw_noise)
        self.status = RunStatus()
        self.clock = RunClock()

    def _draw_noise(self, targets: list[Target]) -> Denoising | None:
        num_queries = self.recipe.denoising_queries
        return draw_denoising(self.plain_model.config, targets, num_queries) if num_queries else None

    def _build_loaders(self) -> None:
        recipe = self.recipe
        process = Process(self.accelerator.process_index, self.accelerator.num_processes)
        self.accumulate = recipe.accumulation(process.count)
        self.loader = build_loader(self.training_data, recipe.batch_size, training=True, seed=recipe.seed,
                                   num_workers=recipe.num_workers, accumulate=self.accumulate, process=process,
                                   plain_from=recipe.epochs - recipe.plain_epochs,
                                   even=recipe.shard,   # whose processes wait for each other in every batch
                                   repeats=self._choose_repeats())
        self.batches: TrainingBatches = self.loader.batch_sampler  # type: ignore[assignment]
        self.validation_loader = build_loader(self.validation_data, recipe.batch_size, training=False,
                                              num_workers=recipe.num_workers, process=process)

    def _choose_repeats(self) -> Int64[np.ndarray, "P"] | None:
        """How often each image comes in an epoch; None: once."""
        data, recipe = self.training_data, self.recipe
        if not recipe.repeat_threshold:
            return None
        repeats = image_repeats(data.targets, len(data.names), recipe.repeat_threshold, recipe.seed)
        if self.is_first:
            logger.info("repeat_threshold: %d of %d images come more than once, so that an epoch has %d",
                        (repeats > 1).sum(), len(repeats), repeats.sum())
        return repeats

    def _prepare(self, model: Network) -> None:
        """Model, average and optimizer on their devices."""
        recipe = self.recipe
        freeze(model.to(self.accelerator.device), recipe.freeze)
        self.average = moving_average(model, recipe.ema_decay) if recipe.ema_decay else None
        # What follows changes how gradients are computed, which the average's copy needs not.
        if self.accelerator.device.type == "cpu":
            model.backbone.fold_in_training()
        if recipe.recompute:
            recompute_activations(model)
        self.model = shard(model, self.accelerator) if recipe.shard else self.accelerator.prepare(model)
        self.optimizer = self.accelerator.prepare(build_optimizer(self.plain_model, recipe))
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.accelerator.is_main_process

    @property
    def plain_model(self) -> Network:
        """The model without Accelerate's wrapper."""
        return self.accelerator.unwrap_model(self.model)

    def continue_from(self, state: TrainingState) -> None:
        """Take over a state that fits this training."""
        self.status = state.status
        load_training_tensors(state.tensors, self.plain_model, self.optimizer.optimizer, self.average)
        if state.scaler and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state.scaler)

    def start_trackers(self) -> None:
        """Begin a run with the recipe's settings in each tracker."""
        if self.recipe.trackers:
            plain = {name: ", ".join(value) if isinstance(value, tuple) else value
                     for name, value in asdict(self.recipe).items()}
            self.accelerator.init_trackers("deformable-detr", plain)

    def train(self) -> CocoMetrics | None:
        """Train all epochs that are left; the numbers of the last one, None if none was left.

        Raises NonFiniteError, with the names of images, as soon as a loss or a gradient is NaN or infinite.
        """
        metrics = None
        try:
            while self.status.epoch < self.recipe.epochs and not self.is_out_of_patience:
                metrics = self._train_and_evaluate()
            if self.is_out_of_patience and self.status.epoch < self.recipe.epochs:
                self._log_out_of_patience()
        except NonFiniteError:   # in all processes; after an error of one process, closing would wait for it
            self._end()
            raise
        self._end()
        return metrics

    def _train_and_evaluate(self) -> CocoMetrics:
        """One epoch, or what is left of it."""
        start = time.monotonic()
        self.clock.restart()
        self.train_epoch()
        model = self.model_to_keep().eval()
        metrics = self.evaluate(model)
        self._record_epoch(model, metrics, time.monotonic() - start)
        self.clock.evaluation_done()
        return metrics

    def _end(self) -> None:
        """Close the trackers and the connection of the processes: gloo's threads, if still running when Python ends,
        can abort it."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    @property
    def is_out_of_patience(self) -> bool:
        """Whether the AP has not risen for as many epochs as the recipe allows."""
        return 0 < self.recipe.patience <= self.status.epochs_since_best

    def _log_out_of_patience(self) -> None:
        status = self.status
        logger.info("stopped after epoch %d of %d: no better AP than %.3f, of epoch %d, for %d epochs (patience: %d)",
                    status.epoch, self.recipe.epochs, status.best_ap, status.epoch - status.epochs_since_best,
                    status.epochs_since_best, self.recipe.patience)

    def train_epoch(self) -> None:
        """The steps of the epoch that are left."""
        status, num_steps = self.status, self.batches.num_steps
        self.model.train()
        self.batches.set_epoch(status.epoch, status.step)
        title = f"epoch {status.epoch + 1}/{self.recipe.epochs}"
        for batches in self.progress(self._steps(), num_steps - status.step, title, self._describe_step):
            self._set_rates(status.epoch * num_steps + status.step, num_steps)
            # Dropout depends on the step only: a resumed run draws the same random numbers as an uninterrupted one.
            seed = mixed_seed(self.recipe.seed, status.epoch, status.step, self.accelerator.process_index)
            status.averages.add(*self.learn(batches, seed))
            if self.average:
                self.average.update_parameters(self.plain_model)
            status.step += 1
            if status.step % self.recipe.save_steps == 0 or status.step == num_steps:
                self.save()
            self.clock.step_done()

    def _steps(self) -> Iterator[list[Batch]]:
        """The batches of each step."""
        batches = iter(self.loader)
        while together := list(islice(batches, self.accumulate)):
            yield together

    def _describe_step(self) -> str:
        """What progress shows of the current step: loss, learning rate, and how long the whole run will still take."""
        status = self.status
        epochs = self.recipe.epochs - status.epoch
        left = self.clock.left(epochs * self.batches.num_steps - status.step, epochs)
        whole = "" if left is None else f" run {left} left"
        return f"loss {status.averages.total:.3f} rate {self.optimizer.param_groups[0]['lr']:.1e}{whole}"

    def _set_rates(self, step: int, steps_per_epoch: int) -> None:
        """The learning rate of every group at this step."""
        factor = self.recipe.rate_factor(step, steps_per_epoch)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor

    def model_to_keep(self) -> Network:
        """What is evaluated and saved: the average, if there is one; of a sharded model the whole."""
        if self.average:
            return self.average.module  # type: ignore[return-value]
        return gathered(self.model) if self.recipe.shard else self.plain_model

    def evaluate(self, model: Network) -> CocoMetrics:
        """COCO numbers on the validation images, which the processes share; computed as a `Detector` does."""
        batches: Iterable[Batch] = self.progress(self.validation_loader, len(self.validation_loader),
                                                 f"epoch {self.status.epoch + 1}/{self.recipe.epochs} evaluation")
        evaluator = detect_all(TorchRuntime(model).run, batches, self.validation_data.annotations,
                               names=self.info.names, device=self.accelerator.device,
                               nms_threshold=self.info.postprocessing.nms_threshold)
        if self.accelerator.num_processes > 1:
            for found in gather_object([evaluator.found]):
                evaluator.found |= found
        return evaluator.summarize()

    def _record_epoch(self, model: Network, metrics: CocoMetrics, seconds: float) -> None:
        """Write everything that the folder keeps of an epoch; the state last, as it means that the rest is there."""
        status = self.status
        ap = metrics.AP if math.isfinite(metrics.AP) else 0.0
        best = ap > status.best_ap
        status.best_ap = max(ap, status.best_ap)
        status.epochs_since_best = 0 if best else status.epochs_since_best + 1
        if self.is_first:
            for path in (self.folder.last, self.folder.best) if best else (self.folder.last,):
                save(path, model, self.info)
            self.folder.add_row(status.epoch + 1, status.averages.total, status.averages.parts, metrics)
            self.folder.write_validation(draw_validation(Detector.from_model(model, self.info), self.validation_data))
            logger.info("epoch %d/%d: loss %.3f, AP %.3f, AP50 %.3f, %.0f s", status.epoch + 1, self.recipe.epochs,
                        status.averages.total, metrics.AP, metrics.AP50, seconds)
        if self.recipe.trackers:
            numbers = {name: value for name, value in asdict(metrics).items() if name != "per_class"}
            self.accelerator.log({"loss": status.averages.total, **status.averages.parts, **numbers},
                                 step=status.epoch + 1)
        status.next_epoch()
        self.save()

    def save(self) -> None:
        """Save the state. Raises NonFiniteError in all processes if it is not finite; the older one stays then."""
        tensors = training_tensors(self.plain_model, self.optimizer.optimizer, self.average)
        scaler = self.accelerator.scaler
        error = None
        if self.is_first:
            try:
                write_state(self.folder.state, TrainingState(self.status, tensors,
                                                             scaler.state_dict() if scaler else {}))
            except NonFiniteError as found:
                error = found
        raise_together(self.accelerator, error)
