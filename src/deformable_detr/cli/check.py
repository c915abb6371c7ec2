"""`ddetr check`: what is wrong with a data set, found before an hour is spent on training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deformable_detr.cli.app import (
    USUAL,
    Count,
    JsonFlag,
    LocalPath,
    MessageFlags,
    OptionalCount,
    OptionalPath,
    WrongCallError,
    app,
    output_console,
    print_line,
    refuse_no_data,
    report_error,
    wrong_call_for,
)
from deformable_detr.marks import free_path, may_write, write_marked
from deformable_detr.progress import Progress

if TYPE_CHECKING:
    from deformable_detr.check import Checkup, Limits
    from deformable_detr.datasets.annotations import Annotations
    from deformable_detr.datasets.kinds import Fault

SHEET = Path("check.png")
FLAGS = {"box-tiny": "--size", "objects-many": "--num-queries"}      # that the advice for these faults refers to


@app.command
def check(data: LocalPath, /, *, fast: bool = False, fix: OptionalPath = None, sheet: OptionalPath = None,
          show: Count = 5, size: OptionalCount = None, max_size: OptionalCount = None,
          num_queries: OptionalCount = None, as_json: JsonFlag = False,
          messages: MessageFlags = USUAL) -> int:
    """Find what is wrong with a data set, and what to do about it, by default for a training without flags.

    Exits with 1 if there are errors or something cannot be written, with 0 if there are only warnings.

    Parameters
    ----------
    data
        The folder of a data set of any format that docs/data.md describes, or its data.yaml or annotation file.
    fast
        Check only the annotations, without decoding images.
    fix
        Write a copy into this new folder, in COCO's format: repaired where that is certain, without the rest.
    sheet
        The PNG file for statistics and a contact sheet; by default "check.png", with --json none. Only a sheet of an
        earlier call is replaced.
    show
        How many findings of a kind to print; --json gives all.
    size
        Pixels of an image's short side in the training to come; by default what it would choose.
    max_size
        Pixels that the long side may have; by default 5/3 of the size.
    num_queries
        Queries of the model, the most objects it can find in an image; by default those of the packaged detector.
    as_json
        Print one object of JSON, and nothing else.
    """
    messages.start()
    inside = data.parent if data.is_file() else data
    if fix is not None:
        _check_fix(fix, inside, fast)
    if size and max_size and max_size < size:
        raise WrongCallError(f"--max-size: expected at least --size ({size}), got {max_size}")
    sheet = _place_of_sheet(sheet, inside, as_json)
    refuse_no_data(data)

    from deformable_detr.check import Limits, check_data
    from deformable_detr.preprocessing import Preprocessing, usual_max_size
    from deformable_detr.training.defaults import default_size
    from deformable_detr.weights.sources import packaged_config

    most_objects = num_queries or packaged_config().get("num_queries", Limits.num_queries)
    def limits_for(splits: Mapping[str, "Annotations"]) -> Limits:
        short = size or default_size(splits.get("train", next(iter(splits.values()))).images)
        return Limits(Preprocessing(short, max_size or usual_max_size(short)), most_objects)

    with wrong_call_for(ValueError):
        checkup = check_data(data, limits_for, fast=fast, progress=messages.progress)
    if not as_json:
        _print_text(checkup, show)      # before anything is written, which may fail
    done = _write_copy(checkup, fix, messages.progress) if fix else None
    if as_json:
        fixed = None if done is None else {"folder": str(fix), "done": done}
        print_line(json.dumps({**checkup.to_dict(_advice), "fixed": fixed}))
    elif done is not None:
        repairs = ", ".join(f"{number} {what}" for what, number in done.items()) or "nothing to repair"
        print_line(f"{fix}: a repaired copy; {repairs}")
    is_whole = not fix or done is not None
    if sheet and checkup.splits:
        has_sheet = _write_sheet(checkup, limits_for(checkup.splits), sheet)
        is_whole = is_whole and has_sheet
        if has_sheet and not as_json:
            print_line(f"{sheet}: statistics and a contact sheet")
    return 0 if is_whole and not checkup.findings.count("error") else 1


def _write_copy(checkup: "Checkup", fix: Path, progress: Progress) -> dict[str, int] | None:
    """The repairs of the copy and their counts; None if there is no copy, the reason for which is printed."""
    from deformable_detr.check.fix import write_fixed

    if checkup.scan is None:
        report_error(f"{fix}: not written, since nothing could be read")
        return None
    try:
        return write_fixed(checkup, fix, progress)
    except OSError as error:
        report_error(f"{fix}: not written completely: {error}")
        return None


def _write_sheet(checkup: "Checkup", limits: "Limits", sheet: Path) -> bool:
    """True if written; otherwise prints the reason."""
    from deformable_detr.check.contact_sheet import draw_sheet

    try:
        write_marked(sheet, draw_sheet(checkup.splits, limits))
    except OSError as error:
        report_error(f"{sheet}: not written: {error}")
        return False
    return True


def _check_fix(fix: Path, data: Path, fast: bool) -> None:
    """Refuse a place for the copy that would touch the data set, or anything else."""
    if fast:
        raise WrongCallError("--fix: needs the images; leave out --fast")
    if fix.is_file() or (fix.is_dir() and any(fix.iterdir())):
        raise WrongCallError(f"--fix: expected a new or empty folder, got {fix}")
    if _is_inside(fix, data) or _is_inside(data, fix):
        raise WrongCallError(f"--fix: expected a folder outside of the data set, got {fix}")


def _place_of_sheet(sheet: Path | None, data: Path, as_json: bool) -> Path | None:
    """Where the sheet goes, which is never into the data set."""
    if sheet and _is_inside(sheet, data):
        raise WrongCallError(f"--sheet: expected a file outside of the data set, got {sheet}")
    if sheet and (sheet.is_dir() or not sheet.parent.is_dir()):
        raise WrongCallError(f"--sheet: expected a file in a folder that exists, got {sheet}")
    if sheet and not may_write(sheet):
        raise WrongCallError(f"--sheet: expected a new file, or a sheet that ddetr has written, got {sheet}")
    return sheet or (None if as_json or _is_inside(SHEET, data) else free_path(SHEET))


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _advice(kind: "Fault") -> str:
    """What to do about a fault, and which flag helps."""
    flag = FLAGS.get(kind.code)
    advice = f"{kind.advice} ({flag})" if flag else kind.advice
    return f"{advice}; --fix {kind.fix}" if kind.fix else advice


def _print_text(checkup: "Checkup", show: int) -> None:
    """The splits, then each kind of finding with some of its places and what to do."""
    from rich.text import Text

    console = output_console()
    console.print(Text(f"{checkup.data}: {checkup.format or 'not read'}"))
    for split, numbers in checkup.to_dict()["splits"].items():
        console.print(Text(f"  {split:<6}{numbers['pictures']:>9} images{numbers['objects']:>10} objects"
                           f"{numbers['empty_pictures']:>9} images without objects"))
    if checkup.is_drawn:
        console.print(Text("  there is no val: it is drawn from train by the names of the images"))
    for kind, count, found in checkup.findings.groups():
        style = "bold red" if kind.severity == "error" else "bold yellow"
        console.print(Text.assemble((f"{kind.severity} {kind.code}", style), f"  {kind.title}: {count}"))
        for finding in found[:show]:
            console.print(Text(f"    {finding}"))
        if count > show:
            console.print(Text(f"    ... and {count - show} more", style="dim"))
        console.print(Text(f"    -> {_advice(kind)}", style="cyan"))
    errors, warnings = (checkup.findings.count(severity) for severity in ("error", "warning"))
    console.print(Text(f"errors: {errors}, warnings: {warnings}"))
