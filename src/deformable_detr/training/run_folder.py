"""The files of a run: settings, numbers as a table and as curves, weights, and the state to resume from."""

import csv
import io
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deformable_detr.files import write_whole
from deformable_detr.report.history import METRICS_FILE, REPORT_FILE, SETTINGS_FILE
from deformable_detr.training.recipe import Recipe

if TYPE_CHECKING:
    from deformable_detr.evaluation import CocoMetrics
    from deformable_detr.papers import Config
    from deformable_detr.weights import ModelInfo

logger = logging.getLogger(__name__)

# These may differ in a resumed run: they change no result, or only what is still to come.
FREE_TO_CHANGE = ("epochs", "plain_epochs", "warmup_steps", "batch_size", "total_batch", "patience", "recompute",
                  "shard", "save_steps", "num_workers", "trackers")
GROUPS = ("model", "preprocessing", "recipe", "classes", "step")
LATER_GROUPS = ("data",)        # which runs of the first release have not
COLUMNS = ("loss", "AP", "AP50")    # of the table, besides the epoch; there are more
# As earlier versions named what they were writing; files.py removes today's.
UNFINISHED = re.compile(r"\.(config\.yaml|metrics\.csv|curves\.png|validation\.png|report\.html|"
                        r"(best|last|state)\.safetensors)\.[0-9a-f]{32}")


class RunError(ValueError):
    """A run folder that cannot be used as asked."""


class FolderUsedError(RunError):
    """A new run would overwrite files."""


class SettingsChangedError(RunError):
    """A run cannot be resumed with other settings unless that is asked for."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    `config.yaml` settings, `metrics.csv` a row per epoch, `curves.png` the same drawn, `validation.png` detections
    and annotations side by side, `best.safetensors` and `last.safetensors` weights, `state.safetensors` what resuming
    needs, and `report.html`, written at the end.
    """

    path: Path

    @property
    def state(self) -> Path:
        """What resuming needs; `training/state.py` reads and writes it."""
        return self.path / "state.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / METRICS_FILE

    @property
    def best(self) -> Path:
        """The weights with the highest AP so far."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The weights of the last epoch."""
        return self.path / "last.safetensors"

    @property
    def _settings(self) -> Path:
        return self.path / SETTINGS_FILE

    @property
    def _pages(self) -> tuple[Path, ...]:
        """What is written after the first row of numbers."""
        return tuple(self.path / name for name in ("curves.png", "validation.png", REPORT_FILE))

    def check_new(self) -> None:
        """Raise FolderUsedError where a new run would overwrite another run, or a file that is no run's.

        A run that ended before its first save leaves nothing but settings, which may be overwritten.
        """
        if self.state.exists():
            raise FolderUsedError(f"{self.path}: holds another run")
        for file in (self.best, self.last, self.metrics):   # people delete the large state of a finished run
            if file.exists():
                raise FolderUsedError(f"{self.path}: holds another run, whose {file.name} would be overwritten")
        self._check_pages()
        if self._settings.exists() and self._settings.read_bytes().strip():
            try:
                self._read_settings()
            except RunError:
                raise FolderUsedError(f"{self._settings}: would be overwritten, but is not the settings of a run"
                                      ) from None

    def _check_pages(self) -> None:
        for file in self._pages:
            if file.exists():
                raise FolderUsedError(f"{file}: would be overwritten, but belongs to no run")

    def check_state(self) -> None:
        """Raise RunError where there is no run to resume."""
        if not self.state.exists():
            raise RunError(f"{self.path}: no run to resume: {self.state.name} is not there")

    def check_same(self, settings: Mapping[str, Any], *, force: bool) -> list[str]:
        """The settings, such as "recipe.seed", that differ from the run in the folder; `force` accepts them.

        Raises RunError where there is no run to resume, or its table of numbers cannot be continued;
        SettingsChangedError for other settings without `force`.
        """
        self.check_state()
        changes = _changes(self._read_settings(), settings)
        if not self.rows():
            self._check_pages()
        if changes and not force:
            raise SettingsChangedError(f"{self.path}: cannot resume with other settings: "
                                       f"{'; '.join(changes.values())}")
        for change in changes.values():
            logger.warning("going on with another setting: %s", change)
        return list(changes)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of a run."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self._settings, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).encode())

    def sweep(self) -> None:
        """Remove the unfinished files that a killed run has left; only the one run of the folder may."""
        for file in self.path.glob(".*"):
            if UNFINISHED.fullmatch(file.name):
                file.unlink(missing_ok=True)

    def _read_settings(self) -> dict[str, dict[str, Any]]:
        try:
            settings = yaml.safe_load(self._settings.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise RunError(f"{self.path}: no run to resume ({error})") from error
        for group in GROUPS:
            if not isinstance(settings, dict) or not isinstance(settings.get(group), dict):
                raise RunError(f"{self._settings}: no run to resume: expected the settings of {', '.join(GROUPS)}, "
                               f"found none of {group}")
        return settings

    def write_validation(self, png: bytes) -> None:
        """An image of what is detected."""
        write_whole(self.path / "validation.png", png)

    def add_row(self, epoch: int, loss: float, parts: dict[str, float], metrics: "CocoMetrics") -> None:
        """Add an epoch, counted from 1, and draw the curves. Rows of this epoch and later ones are replaced."""
        rows = [row for row in self.rows() if int(row["epoch"]) < epoch]
        numbers = {name: value for name, value in asdict(metrics).items() if name != "per_class"}
        rows.append({"epoch": epoch, "loss": loss, **parts, **numbers})
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, rows[-1].keys(), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.metrics, table.getvalue().encode())
        from deformable_detr.report.curves import draw_curves

        columns = {name: [_number(row.get(name)) for row in rows] for name in rows[-1]}
        write_whole(self.path / "curves.png", draw_curves(columns))

    def rows(self) -> list[dict[str, Any]]:
        """The table so far. Raises RunError where it is another table, as a spreadsheet may have saved it."""
        if not self.metrics.exists():
            return []
        try:
            with self.metrics.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                int(row["epoch"])
                for name in COLUMNS:
                    float(row[name])
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:   # TypeError: a line that is too short
            raise RunError(f"{self.metrics}: expected the table as the run has written it, in UTF-8 with commas, "
                           f"the columns epoch, loss, AP and AP50 with numbers ({type(error).__name__}: {error})"
                           ) from error
        return rows


def _number(cell: object) -> float:
    """NaN where a cell of the table is empty, or holds text that somebody has added."""
    try:
        return float(str(cell))
    except ValueError:
        return math.nan


def settings_of(config: "Config", info: "ModelInfo", recipe: Recipe, step_size: int,
                data: Mapping[str, str]) -> dict[str, dict[Any, Any]]:
    """All settings of a run, as plain values for YAML.

    `step_size` images make a step; `data` has the fingerprint of each split.
    """
    def plain(settings: Any) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}

    return {"model": plain(config), "preprocessing": plain(info.preprocessing), "recipe": plain(recipe),
            "step": {"pictures": step_size}, "classes": dict(zip(info.category_ids, info.names, strict=True)),
            "data": dict(data), "provenance": dict(info.provenance)}


def _changes(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What differs, by name; a setting that is younger than the run had its default then."""
    defaults = {"recipe": {field.name: field.default for field in fields(Recipe)}}
    changes = {}
    for group in (*GROUPS, *(group for group in LATER_GROUPS if isinstance(old.get(group), dict))):
        for name, value in new.get(group, {}).items():
            before = old[group].get(name, defaults.get(group, {}).get(name))
            if name not in FREE_TO_CHANGE and before != value:
                changes[f"{group}.{name}"] = f"{group}.{name}: the run has {before!r}, got {value!r}"
    return changes
