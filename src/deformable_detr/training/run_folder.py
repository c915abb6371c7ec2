"""What a run leaves behind: its settings, its numbers as a table and as curves, its weights, and where to go on."""

import csv
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from deformable_detr.evaluation import CocoMetrics
from deformable_detr.model import DeformableDETR
from deformable_detr.training.recipe import Recipe
from deformable_detr.weights import ModelInfo, save

FREE_TO_CHANGE = ("epochs", "num_workers")   # between a run and its resumption
CURVES = {"loss": ("loss",), "AP": ("AP", "AP50")}


class RunError(ValueError):
    """A run folder that cannot be used as asked."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    `config.yaml` settings, `metrics.csv` a row an epoch, `curves.png` the same drawn, `validation.png` detections
    beside the truth, `best.safetensors` and `last.safetensors` weights, `checkpoint.pt` what resuming needs.
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Model, optimizer and epoch; read with `weights_only=True`."""
        return self.path / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        """A row an epoch."""
        return self.path / "metrics.csv"

    @property
    def best(self) -> Path:
        """The weights with the highest AP so far."""
        return self.path / "best.safetensors"

    def begin(self, settings: dict[str, Any], *, resume: bool) -> None:
        """Write down the settings of a run, or go on with the one that is there.

        Raises RunError where a new run would overwrite another, and where a resumed one has other settings.
        """
        if resume:
            self._check_same(settings)
        elif self.checkpoint.exists():
            raise RunError(f"{self.path}: holds another run; go on with --resume, or choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        self._settings.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
        if not resume:
            self.metrics.unlink(missing_ok=True)

    @property
    def _settings(self) -> Path:
        return self.path / "config.yaml"

    def _check_same(self, settings: dict[str, Any]) -> None:
        try:
            old = yaml.safe_load(self._settings.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise RunError(f"{self.path}: no run to resume ({error})") from error
        changed = [f"{group}.{name}: the run has {old.get(group, {}).get(name)!r}, got {value!r}"
                   for group in ("model", "preprocessing", "recipe", "classes")
                   for name, value in settings[group].items()
                   if name not in FREE_TO_CHANGE and old.get(group, {}).get(name) != value]
        if changed:
            raise RunError(f"{self.path}: cannot resume with other settings: {'; '.join(changed)}")

    def read_checkpoint(self) -> dict[str, Any]:
        """What `write_checkpoint` wrote. Raises RunError when there is none."""
        try:
            return torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise RunError(f"{self.path}: no run to resume: {self.checkpoint.name} is not there") from None
        except Exception as error:   # a damaged archive raises almost anything
            raise RunError(f"{self.checkpoint}: damaged: {error}") from error

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Write beside the old one, then rename: there is always a whole one."""
        unfinished = self.checkpoint.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(self.checkpoint)

    def write_weights(self, model: DeformableDETR, info: ModelInfo, *, best: bool) -> None:
        """The weights of this epoch; as the best too, where they are."""
        save(self.path / "last.safetensors", model, info)
        if best:
            save(self.best, model, info)

    def add_row(self, epoch: int, loss: float, parts: dict[str, float], metrics: CocoMetrics) -> None:
        """Add an epoch, counted from 1, and draw the curves. Rows of this epoch and later ones give way."""
        rows = [row for row in self.rows() if int(row["epoch"]) < epoch]
        numbers = {name: value for name, value in asdict(metrics).items() if name != "per_class"}
        rows.append({"epoch": epoch, "loss": loss, **parts, **numbers})
        unfinished = self.metrics.with_suffix(".unfinished")
        with unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[-1].keys(), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(unfinished, self.metrics)  # noqa: PTH105
        draw_curves(self.rows(), self.path / "curves.png")

    def rows(self) -> list[dict[str, Any]]:
        """The table so far."""
        if not self.metrics.exists():
            return []
        with self.metrics.open(newline="") as file:
            return list(csv.DictReader(file))


def draw_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Loss and AP over the epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [int(row["epoch"]) for row in rows]
    for axes, (title, names) in zip(figure.subplots(1, 2), CURVES.items(), strict=True):
        for name in names:
            axes.plot(epochs, [float(row[name]) for row in rows], marker=".", label=name)
        axes.set(title=title, xlabel="epoch")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    figure.savefig(path, dpi=120)


def settings_of(model: DeformableDETR, info: ModelInfo, recipe: Recipe) -> dict[str, Any]:
    """All settings of a run, as plain values for YAML."""
    preprocessing = {name: list(value) if isinstance(value, tuple) else value
                     for name, value in asdict(info.preprocessing).items()}
    return {"model": asdict(model.config), "preprocessing": preprocessing, "recipe": asdict(recipe),
            "classes": dict(zip(info.category_ids, info.names, strict=True)), "provenance": dict(info.provenance)}
