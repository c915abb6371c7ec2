"""What a run leaves behind: its settings, its numbers as a table and as curves, its weights, and where to go on."""

import csv
import io
import logging
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from deformable_detr.evaluation import CocoMetrics
from deformable_detr.files import write_whole
from deformable_detr.papers import DeformableDETR
from deformable_detr.training.recipe import Recipe
from deformable_detr.weights import ModelInfo, save

logger = logging.getLogger(__name__)

# Between a run and its resumption: these change no result, or only what is still to come.
FREE_TO_CHANGE = ("epochs", "plain_epochs", "warmup_steps", "batch_size", "total_batch", "patience", "recompute",
                  "shard", "save_steps", "num_workers", "trackers")
GROUPS = ("model", "preprocessing", "recipe", "classes", "step")
CURVES = {"loss": ("loss",), "AP": ("AP", "AP50")}


class RunError(ValueError):
    """A run folder that cannot be used as asked."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    `config.yaml` settings, `metrics.csv` a row an epoch, `curves.png` the same drawn, `validation.png` detections
    beside the truth, `best.safetensors` and `last.safetensors` weights, `state.safetensors` what resuming needs, and
    `report.html`, written at the end.
    """

    path: Path

    @property
    def state(self) -> Path:
        """Where the training stands; `training/state.py` reads and writes it."""
        return self.path / "state.safetensors"

    @property
    def metrics(self) -> Path:
        """A row an epoch."""
        return self.path / "metrics.csv"

    @property
    def best(self) -> Path:
        """The weights with the highest AP so far."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The weights of the last epoch."""
        return self.path / "last.safetensors"

    def check_new(self) -> None:
        """Raise RunError where a new run would overwrite another."""
        if self.state.exists():
            raise RunError(f"{self.path}: holds another run; go on with --resume, or choose another --out")
        # People delete the large state of a finished run; settings alone are of a run that ended before its first save.
        for file in (self.best, self.last, self.metrics):
            if file.exists():
                raise RunError(f"{self.path}: holds another run, whose {file.name} would be overwritten; "
                               "choose another --out")

    def begin(self, settings: dict[str, Any]) -> None:
        """Write down the settings of a run."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self._settings, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode())

    @property
    def _settings(self) -> Path:
        return self.path / "config.yaml"

    def check_same(self, settings: dict[str, Any], *, force: bool) -> None:
        """Raise RunError where there is no run to resume, or it has other settings, which `force` takes.

        A table of numbers that cannot be gone on with is told here too, before an epoch is trained for it.
        """
        if not self.state.exists():
            raise RunError(f"{self.path}: no run to resume: {self.state.name} is not there")
        old = self._read_settings()
        changed = [f"{group}.{name}: the run has {old[group].get(name)!r}, got {value!r}"
                   for group in GROUPS for name, value in settings[group].items()
                   if name not in FREE_TO_CHANGE and old[group].get(name) != value]
        self.rows()
        if changed and not force:
            raise RunError(f"{self.path}: cannot resume with other settings, but with --force: {'; '.join(changed)}")
        for change in changed:
            logger.warning("going on with another setting: %s", change)

    def _read_settings(self) -> dict[str, dict[str, Any]]:
        try:
            settings = yaml.safe_load(self._settings.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise RunError(f"{self.path}: no run to resume ({error})") from error
        for group in GROUPS:
            if not isinstance(settings, dict) or not isinstance(settings.get(group), dict):
                raise RunError(f"{self._settings}: no run to resume: expected the settings of {', '.join(GROUPS)}, "
                               f"found none of {group}")
        return settings

    def write_weights(self, model: DeformableDETR, info: ModelInfo, *, best: bool) -> None:
        """The weights of this epoch; as the best too, where they are."""
        save(self.last, model, info)
        if best:
            save(self.best, model, info)

    def write_validation(self, png: bytes) -> None:
        """An image of what is found."""
        write_whole(self.path / "validation.png", png)

    def add_row(self, epoch: int, loss: float, parts: dict[str, float], metrics: CocoMetrics) -> None:
        """Add an epoch, counted from 1, and draw the curves. Rows of this epoch and later ones give way."""
        rows = [row for row in self.rows() if int(row["epoch"]) < epoch]
        numbers = {name: value for name, value in asdict(metrics).items() if name != "per_class"}
        rows.append({"epoch": epoch, "loss": loss, **parts, **numbers})
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, rows[-1].keys(), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.metrics, table.getvalue().encode())
        write_whole(self.path / "curves.png", draw_curves(self.rows()))

    def rows(self) -> list[dict[str, Any]]:
        """The table so far. Raises RunError where it is none, as a spreadsheet may have saved it."""
        if not self.metrics.exists():
            return []
        try:
            with self.metrics.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                int(row["epoch"])
                for name in chain(*CURVES.values()):
                    float(row[name])
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:   # TypeError: a line that is too short
            raise RunError(f"{self.metrics}: expected the table as the run has written it, in UTF-8 with commas, "
                           f"the columns epoch, loss, AP and AP50 with numbers ({type(error).__name__}: {error})"
                           ) from error
        return rows


def draw_curves(rows: list[dict[str, Any]]) -> bytes:
    """Loss and AP over the epochs, as PNG."""
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
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120)
    return drawn.getvalue()


def settings_of(model: DeformableDETR, info: ModelInfo, recipe: Recipe, step_size: int) -> dict[str, Any]:
    """All settings of a run, as plain values for YAML; `step_size` images make a step."""
    def plain(settings: Any) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}

    return {"model": plain(model.config), "preprocessing": plain(info.preprocessing), "recipe": plain(recipe),
            "step": {"pictures": step_size}, "classes": dict(zip(info.category_ids, info.names, strict=True)),
            "provenance": dict(info.provenance)}
