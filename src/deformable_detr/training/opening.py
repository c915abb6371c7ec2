"""Open a training's run folder: for a new run, or for one that continues where it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from deformable_detr.training.fingerprint import fingerprint
from deformable_detr.training.loop import Training
from deformable_detr.training.machine import raise_together
from deformable_detr.training.run_folder import FolderUsedError, RunError, settings_of
from deformable_detr.training.run_lock import run_lock
from deformable_detr.training.state import TrainingState, read_state
from deformable_detr.training.tensors import check_training_tensors


@contextmanager
def opened_run(training: Training, *, resume: bool = False, force: bool = False) -> Iterator[None]:
    """Hold the run folder; with `resume`, continue the run in it, with `force` even with other settings.

    Raises RunError in all processes if the folder does not allow it, or another run holds it.
    """
    folder = training.folder.path
    may_lock = folder.is_dir() or not resume    # to look for a run must not make a folder
    with run_lock(folder) if training.is_first and may_lock else nullcontext(True) as is_ours:
        used = FolderUsedError(f"{folder}: another process is writing a run into it")
        raise_together(training.accelerator, None if is_ours else used)
        _begin(training, resume, force)
        yield


def _begin(training: Training, resume: bool, force: bool) -> None:
    """Check the folder in all processes, and only then write into it, and continue from it."""
    data = {split: fingerprint(dataset.annotations)
            for split, dataset in (("train", training.training_data), ("val", training.validation_data))}
    settings = settings_of(training.plain_model.config, training.info, training.recipe, training.batches.step_size,
                           data)
    error = state = None
    try:
        if resume:
            state = _read_state(training, training.folder.check_same(settings, force=force))
        else:
            training.folder.check_new()
    except RunError as found:
        error = found
    raise_together(training.accelerator, error)   # which also keeps any process from taking this run for an older one
    if training.is_first:
        training.folder.sweep()
        training.folder.begin(settings)
    if state:
        training.continue_from(state)
    training.start_trackers()


def _read_state(training: Training, changes: Sequence[str]) -> TrainingState:
    """The state in the folder, of a run with these `changes` of settings. Raises RunError if it does not fit."""
    path, num_steps = training.folder.state, training.batches.num_steps
    try:
        state = read_state(path)
        check_training_tensors(state.tensors, training.plain_model, training.average)
        if state.status.step > num_steps and not changes:
            raise ValueError(f"step: expected at most {num_steps}, got {state.status.step}")
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be resumed ({error})") from error
    if "data.val" in changes:   # an AP on other images is no measure for the next ones
        state.status.best_ap, state.status.epochs_since_best = -1.0, 0
    return state
