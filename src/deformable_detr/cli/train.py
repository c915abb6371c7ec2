"""`ddetr train`: a data set in, weights out."""

import shlex
from dataclasses import asdict, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from deformable_detr import __version__
from deformable_detr.cli.app import (
    INTERRUPTED,
    WrongCallError,
    app,
    command_line,
    is_first_process,
    log_to_stderr,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.papers.config import ModelConfig
from deformable_detr.training.recipe import Recipe

if TYPE_CHECKING:
    from deformable_detr.datasets.findings import Findings
    from deformable_detr.loading.dataset import DetectionDataset
    from deformable_detr.preprocessing import Preprocessing
    from deformable_detr.training import Training
    from deformable_detr.training.run_folder import RunFolder
    from deformable_detr.training.start import Start

Preset = Literal["single-scale", "single-scale-dc5", "multi-scale", "refine", "two-stage"]
Pixels = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]


def _optional(name: str, settings: Any, without: str = "") -> Any:
    """A dataclass with the fields and the documentation of another one; None stands for what nobody said."""
    return make_dataclass(name, [(part.name, part.type | None, field(default=None))  # type: ignore[operator]
                                 for part in fields(settings) if part.name != without],
                          namespace={"__module__": __name__, "__doc__": settings.__doc__})


_MODEL: Any = _optional("ModelChanges", ModelConfig, without="num_classes")   # which the data knows
_RECIPE: Any = _optional("RecipeChanges", Recipe)
ModelChanges = Annotated[_MODEL | None, Parameter(name="*", group="Model (by default as the preset says)")]
RecipeChanges = Annotated[_RECIPE | None, Parameter(name="*", group="Recipe (by default chosen; with --preset the "
                                                                    "published one)")]


@app.command
def train(data: Path, /, *, preset: Preset | None = None, out: Path = Path("runs/train"), resume: bool = False,
          force: bool = False, weights: str | None = None, backbone_weights: str | None = None, size: Pixels = None,
          max_size: Pixels = None, model: ModelChanges = None, recipe: RecipeChanges = None) -> int:
    """Train a detector on a data set.

    What no flag says is chosen for the data and the machine, printed with its reason, and kept in the run's folder.

    Parameters
    ----------
    data
        The folder of a data set: COCO, YOLO, Pascal VOC, parquet, or WebDataset.
    preset
        One of the published detectors, and the published recipe; with --weights the recipe alone.
    out
        The folder for weights, curves, numbers and images of this run.
    resume
        Go on where the run in the folder stands; the other settings must be those of the run.
    force
        With --resume, take other settings for what is left of the run.
    weights
        Start from this detector ("demo", a file, or "hf:owner/name"); the heads of other classes start anew.
    backbone_weights
        Start the backbone from this file (.pth of the timm model), or from "pretrained", which timm fetches.
    size
        Pixels of an image's short side; by default what --weights were trained with, else 800 with --preset,
        --backbone-weights or a flag of the model, else chosen for the data and the machine.
    max_size
        Pixels that the long side may have; by default 5/3 of the size.
    """
    log_to_stderr()
    changes, said = _said(model), _said(recipe)
    with wrong_call_for(ValueError, OSError):
        from deformable_detr.datasets.findings import DataError
        from deformable_detr.training.machine import is_out_of_memory, reason_to_stop
        from deformable_detr.training.run_folder import RunFolder
        from deformable_detr.training.start import Start

        start = Start(preset, changes, weights, backbone_weights, size, max_size)
        try:
            training = _prepare(data, start, said, RunFolder(out))
        except DataError as error:
            raise WrongCallError(f"{error} (ddetr check {shlex.quote(str(data))} tells all)") from error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise WrongCallError(f"out of memory before the first step ({error}): lower what makes the model "
                                 "large, such as --width") from error
        training.begin(resume=resume, force=force)
    try:
        training.train()
    except KeyboardInterrupt:
        report_error(f"interrupted; {_how_to_go_on(training.folder)}")
        return INTERRUPTED
    except Exception as error:
        reason = reason_to_stop(error)
        if reason is None:
            raise
        report_error(f"{reason}; {_how_to_go_on(training.folder)}")
        return 1
    if training.is_first:
        from deformable_detr.training.run_report import report_run

        report_run(training)
        best = shlex.quote(str(training.folder.best))
        print_line(f"best AP {training.standing.best_ap:.3f}: ddetr detect IMAGE --weights {best}")
    return 0


def _how_to_go_on(folder: "RunFolder") -> str:
    if folder.state.exists():
        return f"what was saved is in {folder.path}, and --resume goes on from there"
    return f"nothing was saved in {folder.path} for --resume to go on from"


def _prepare(data: Path, start: "Start", said: dict[str, Any], folder: "RunFolder") -> "Training":
    from deformable_detr.datasets.findings import Findings
    from deformable_detr.datasets.folder import DataFolder
    from deformable_detr.loading.augmentation import train_transform
    from deformable_detr.loading.dataset import DetectionDataset
    from deformable_detr.loading.transforms import eval_transform
    from deformable_detr.training import Training
    from deformable_detr.training.choices import choose
    from deformable_detr.weights import ModelInfo

    findings = Findings(strict=True)
    source = DataFolder(data, findings)
    training_data = DetectionDataset(source, "train", findings=findings)
    start, recipe, reasons = choose(start, said, training_data.annotations)
    training_data.transform = train_transform(recipe.augmentation, start.preprocessing)
    validation_data = DetectionDataset(source, "val", eval_transform(start.preprocessing), findings)
    model = start.model(training_data.names, recipe.seed)
    _check(training_data, validation_data, start.preprocessing, model.config, findings)
    info = ModelInfo(training_data.names, training_data.category_ids, start.preprocessing,
                     {**_provenance(data), **{f"chosen {setting}": reason for setting, reason in reasons.items()}})
    return Training(model, info, training_data, validation_data, recipe, folder)


def _check(training_data: "DetectionDataset", validation_data: "DetectionDataset", preprocessing: "Preprocessing",
           config: ModelConfig, findings: "Findings") -> None:
    """Add what the annotations make one expect of the training to what reading them found, and say all of it once.

    Raises DataError where the training would be for nothing.
    """
    from deformable_detr.check import Limits, check_splits

    splits = {"train": training_data.annotations, "val": validation_data.annotations}
    check_splits(splits, Limits(preprocessing, config.num_queries, config.finest_stride), findings)
    if is_first_process():
        findings.log()


def _said(settings: Any) -> dict[str, Any]:
    """What the user has said of a group of settings."""
    return {name: value for name, value in asdict(settings).items() if value is not None} if settings else {}


def _provenance(data: Path) -> dict[str, str]:
    return {"data": data.resolve().name, "command": command_line.get(), "version": __version__}
