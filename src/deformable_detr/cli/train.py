"""`ddetr train`: a data set in, weights out."""

import logging
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from deformable_detr import __version__
from deformable_detr.cli.app import (
    INTERRUPTED,
    USUAL,
    LocalPath,
    MessageFlags,
    WrongCallError,
    app,
    command_line,
    end_process,
    find_weights_file,
    print_line,
    refuse_no_data,
    report_error,
)
from deformable_detr.cli.train_flags import ModelFlags, RecipeFlags, given
from deformable_detr.datasets.findings import DataError
from deformable_detr.papers.config import Preset
from deformable_detr.progress import Progress
from deformable_detr.training.processes import is_first_process
from deformable_detr.training.recipe import Recipe
from deformable_detr.training.run_folder import FolderUsedError, RunFolder, SettingsChangedError
from deformable_detr.training.start import PRETRAINED, Start

if TYPE_CHECKING:
    from accelerate import Accelerator

    from deformable_detr.datasets.findings import Findings
    from deformable_detr.datasets.folder import DataFolder
    from deformable_detr.loading.dataset import DetectionDataset
    from deformable_detr.training import Training
    from deformable_detr.training.choices import Plan

logger = logging.getLogger(__name__)

NmsThreshold = Annotated[float | None, Parameter(validator=validators.Number(gt=0, lte=1))]
Pixels = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
Model = Annotated[ModelFlags | None, Parameter(name="*", group="Model (by default that of the preset)")]
RecipeGroup = Annotated[RecipeFlags | None, Parameter(name="*", group="Recipe (by default chosen; with --preset the "
                                                                      "published one)")]


@app.command
def train(data: LocalPath, /, *, preset: Preset | None = None, out: LocalPath = Path("runs/train"),
          resume: bool = False, force: bool = False, weights: str | None = None, backbone_weights: str | None = None,
          size: Pixels = None, max_size: Pixels = None, nms_threshold: NmsThreshold = None, model: Model = None,
          recipe: RecipeGroup = None, messages: MessageFlags = USUAL) -> int:
    """Train a detector on a data set.

    What no flag decides is chosen for the data and the machine, printed with its reason, and kept in the run's folder.

    Parameters
    ----------
    data
        The folder of a data set: COCO, YOLO, Pascal VOC, LabelMe, CVAT, parquet, imagefolder, or WebDataset.
    preset
        One of the published detectors, and the published recipe; with --weights the recipe only.
    out
        The folder for weights, curves, numbers and images of this run.
    resume
        Continue the run in the folder where it was; the other settings must be those of the run.
    force
        With --resume, accept other settings for the rest of the run.
    weights
        Start from this detector: "demo", a name that `ddetr weights` lists, "hf:owner/name", a file or a folder of any
        code base. Classes that it does not know start anew.
    backbone_weights
        Start the backbone from this file (.pth of the timm model), or from "pretrained", which timm fetches.
    size
        Pixels of an image's short side; by default what --weights were trained with, 800 with --preset, else chosen
        for the data and the machine.
    max_size
        Pixels that the long side may have; by default 5/3 of the size.
    nms_threshold
        Of two boxes of a class with a higher IoU keep only the better one, in all uses of the weights; 1 keeps both.
    """
    messages.start()
    with _wrong_calls(data):
        start = Start(preset, given(model), weights, backbone_weights, size, max_size, nms_threshold)
        call = Call(data, start, given(recipe), RunFolder(out), resume, force, messages.progress)
        _refuse_early(call)
    with ExitStack() as stack:
        with _wrong_calls(data):
            training = _open(call, stack)
        return _run(training, messages.progress)


@dataclass(frozen=True)
class Call:
    """What a user asks for."""

    data: Path
    start: Start
    settings: dict[str, Any]    # of the recipe
    folder: RunFolder
    resume: bool
    force: bool
    progress: Progress


def _refuse_early(call: Call) -> None:
    """Refuse what can be seen to be wrong before the seconds that torch takes to import."""
    refuse_no_data(call.data)
    if call.start.weights is not None:
        find_weights_file(str(call.start.weights))
    backbone = call.start.backbone_weights
    if backbone not in (None, PRETRAINED) and not Path(str(backbone)).is_file():
        raise WrongCallError(f"--backbone-weights: {backbone}: no such file")
    strong = {"augmentation": "strong"} if call.settings.get("plain_epochs") else {}   # it would be chosen
    Recipe(**{**strong, **call.settings})
    if call.resume:
        call.folder.check_state()
    elif is_first_process():    # another may be late, and see what the first has begun to write
        call.folder.check_new()


@contextmanager
def _wrong_calls(data: Path) -> Iterator[None]:
    """What ends a call before its first step, in one line; the library's words become those of the command line."""
    try:
        yield
    except DataError as error:
        raise WrongCallError(f"{error} (for the full list run ddetr check {shlex.quote(str(data))})") from error
    except SettingsChangedError as error:
        raise WrongCallError(f"{error} (--force accepts them)") from error
    except FolderUsedError as error:
        raise WrongCallError(f"{error} (choose another --out, or go on with a run by --resume)") from error
    except (ValueError, OSError) as error:
        raise WrongCallError(str(error)) from error
    except (RuntimeError, MemoryError) as error:
        from deformable_detr.training.machine import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise WrongCallError(f"out of memory before the first step ({error}): lower what makes the model "
                             "large, such as --width") from error


def _open(call: Call, stack: ExitStack) -> "Training":
    """A training as far as its first step; what it holds is left with `stack`."""
    from deformable_detr.datasets.findings import Findings
    from deformable_detr.datasets.folder import DataFolder
    from deformable_detr.loading.dataset import DetectionDataset
    from deformable_detr.training.choices import plan_training
    from deformable_detr.training.machine import accelerator_for
    from deformable_detr.training.opening import opened_run

    findings = Findings(strict=True)
    source = DataFolder(call.data, findings, call.progress)
    whole = DetectionDataset(source, "train", findings=findings)
    plan = plan_training(call.start, call.settings, whole.annotations)
    _log_choices(plan)
    accelerator = stack.enter_context(accelerator_for(plan.recipe, call.folder.path))
    training = _build(call, plan, whole, source, findings, accelerator)
    stack.enter_context(opened_run(training, resume=call.resume, force=call.force))
    return training


def _log_choices(plan: "Plan") -> None:
    if plan.reasons:
        logger.info("chosen, as no flag decides otherwise:")
    for name, reason in plan.reasons.items():
        logger.info("  --%s %s", name.replace("_", "-"), reason)


def _build(call: Call, plan: "Plan", whole: "DetectionDataset", source: "DataFolder", findings: "Findings",
           accelerator: "Accelerator") -> "Training":
    from deformable_detr.loading.augmentation import train_transform
    from deformable_detr.loading.dataset import DetectionDataset
    from deformable_detr.loading.transforms import eval_transform
    from deformable_detr.training import Training
    from deformable_detr.weights import ModelInfo

    origin, recipe = plan.origin, plan.recipe
    augmentation = train_transform(recipe.augmentation, origin.preprocessing, recipe.flip,
                                   quarter_turns=recipe.quarter_turns)
    training_data = whole.with_transform(augmentation)
    validation_data = DetectionDataset(source, "val", eval_transform(origin.preprocessing), findings)
    _check_data(training_data, validation_data, plan, findings)
    model = origin.model(training_data.names, recipe.seed)
    provenance = {"data": call.data.resolve().name, "command": command_line.get(), "version": __version__}
    provenance |= {f"chosen {setting}": reason for setting, reason in plan.reasons.items()}
    info = ModelInfo(training_data.names, training_data.category_ids, origin.preprocessing, provenance,
                     origin.postprocessing)
    return Training(accelerator, model, info, training_data, validation_data, recipe, call.folder, call.progress)


def _check_data(training_data: "DetectionDataset", validation_data: "DetectionDataset", plan: "Plan",
                findings: "Findings") -> None:
    """Add to what reading the annotations found what they mean for this training, and print all of it once.

    Raises DataError if the training would be useless.
    """
    from deformable_detr.check import Limits, check_splits

    splits = {"train": training_data.annotations, "val": validation_data.annotations}
    config = plan.origin.config
    # Training warns of mirrored classes itself, by its own flips.
    limits = Limits(plan.origin.preprocessing, config.num_queries, stride=config.finest_stride, mirrored=False)
    check_splits(splits, limits, findings)
    if is_first_process():
        findings.log()


def _run(training: "Training", progress: Progress) -> int:
    """Train, and report; the exit code."""
    from deformable_detr.training.machine import reason_to_stop
    from deformable_detr.training.run_report import report_run

    try:
        training.train()
    except KeyboardInterrupt:
        report_error(f"interrupted; {_how_to_go_on(training.folder)}")
        return _ended(training, INTERRUPTED)
    except Exception as error:
        reason = reason_to_stop(error)
        if reason is None:
            raise
        report_error(f"{reason}; {_how_to_go_on(training.folder)}")
        return _ended(training, 1)
    if training.is_first:
        report_run(training, progress)
        best = shlex.quote(str(training.folder.best))
        print_line(f"best AP {training.status.best_ap:.3f}: ddetr detect IMAGE --weights {best}")
    return 0


def _ended(training: "Training", code: int) -> int:
    """The exit code. One of several processes ends at once: without its peers, gloo's threads would abort Python."""
    if training.accelerator.num_processes > 1:
        end_process(code)
    return code


def _how_to_go_on(folder: RunFolder) -> str:
    if folder.state.exists():
        return f"what was saved is in {folder.path}, and --resume goes on from there"
    return f"nothing was saved in {folder.path} for --resume to go on from"
