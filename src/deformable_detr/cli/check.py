"""`ddetr check`: what is wrong with a data set, before an hour is spent on it?"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from deformable_detr.cli.app import JsonFlag, WrongCallError, app, print_line, report_error, wrong_call_for

if TYPE_CHECKING:
    from deformable_detr.check import Checkup, Limits
    from deformable_detr.datasets.annotations import Annotations

Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]

SHEET = Path("check.png")
PACKAGED_QUERIES = 100      # which the weights say too, but only to who loads them
UNBROKEN = 100_000   # characters of a line in a file or a pipe


@app.command
def check(data: Path, /, *, fast: bool = False, fix: Path | None = None, sheet: Path | None = None, show: Count = 5,
          size: Count | None = None, max_size: Count | None = None, num_queries: Count = PACKAGED_QUERIES,
          as_json: JsonFlag = False) -> int:
    """Find what is wrong with a data set, and say what to do about it, by default for a training without flags.

    Ends with 1 where there are errors or something cannot be written, with 0 where there are warnings alone.

    Parameters
    ----------
    data
        The folder of a data set: COCO, YOLO, Pascal VOC, parquet, or WebDataset.
    fast
        Look at the annotations alone, at no image.
    fix
        Write a copy into this new folder, in COCO's format: mended where that is certain, without the rest.
    sheet
        The PNG file for statistics and a contact sheet; by default "check.png", with --json none.
    show
        How many findings of a kind to print; --json gives all.
    size
        Pixels of an image's short side in the training to come; by default what it would choose.
    max_size
        Pixels that the long side may have; by default 5/3 of the size.
    num_queries
        Objects that the model will be able to find in an image; by default those of the packaged detector.
    as_json
        Print one object of JSON, and nothing else.
    """
    if fix is not None:
        _check_fix(fix, data, fast)
    sheet = _place_of_sheet(sheet, data, as_json)

    from deformable_detr.check import Limits, check_data
    from deformable_detr.check.limits import usual_size
    from deformable_detr.preprocessing import Preprocessing

    def limits_for(splits: Mapping[str, "Annotations"]) -> Limits:
        short = size or usual_size(splits.get("train", next(iter(splits.values()))).images)
        return Limits(Preprocessing(short, max_size or max(short, round(short * 5 / 3))), num_queries)

    with wrong_call_for(ValueError):
        checkup = check_data(data, limits_for, fast=fast)
    if not as_json:
        _print_text(checkup, show)      # before anything is written, which may fail
    done = _write_copy(checkup, fix) if fix else None
    if as_json:
        fixed = None if done is None else {"folder": str(fix), "done": done}
        print_line(json.dumps({**checkup.to_dict(), "fixed": fixed}))
    elif done is not None:
        mended = ", ".join(f"{number} {what}" for what, number in done.items()) or "nothing to be mended"
        print_line(f"{fix}: a cleaned copy; {mended}")
    is_whole = not fix or done is not None
    if sheet and checkup.splits:
        has_sheet = _write_sheet(checkup, limits_for(checkup.splits), sheet)
        is_whole = is_whole and has_sheet
        if has_sheet and not as_json:
            print_line(f"{sheet}: statistics and a contact sheet")
    return 0 if is_whole and not checkup.findings.count("error") else 1


def _write_copy(checkup: "Checkup", fix: Path) -> dict[str, int] | None:
    """How much of what was mended in the copy; None where there is none, which is told."""
    from deformable_detr.check.fix import write_fixed

    if checkup.looks is None:
        report_error(f"{fix}: not written, since nothing could be read")
        return None
    try:
        return write_fixed(checkup, fix)
    except OSError as error:
        report_error(f"{fix}: not written whole: {error}")
        return None


def _write_sheet(checkup: "Checkup", limits: "Limits", sheet: Path) -> bool:
    """Whether it could be; else it is told why."""
    from deformable_detr.check.sheet import draw_sheet

    try:
        sheet.write_bytes(draw_sheet(checkup.splits, limits))
    except OSError as error:
        report_error(f"{sheet}: not written: {error}")
        return False
    return True


def _check_fix(fix: Path, data: Path, fast: bool) -> None:
    """Refuse a place for the copy that would touch the data set, or anything else."""
    if fast:
        raise WrongCallError("--fix: it has to look at the images; leave out --fast")
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
    return sheet or (None if as_json or _is_inside(SHEET, data) else SHEET)


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _print_text(checkup: "Checkup", show: int) -> None:
    """The splits, then each kind of finding with some of its places and what to do."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBROKEN
    console.print(Text(f"{checkup.data}: {checkup.format or 'not read'}"))
    for split, numbers in checkup.to_dict()["splits"].items():
        console.print(Text(f"  {split:<6}{numbers['pictures']:>9} images{numbers['objects']:>10} objects"
                           f"{numbers['empty_pictures']:>9} images without objects"))
    if checkup.is_drawn:
        console.print(Text("  there is no val: it is drawn from train, always the same images"))
    for kind, count, found in checkup.findings.groups():
        style = "bold red" if kind.severity == "error" else "bold yellow"
        console.print(Text.assemble((f"{kind.severity} {kind.code}", style), f"  {kind.title}: {count}"))
        for finding in found[:show]:
            console.print(Text(f"    {finding}"))
        if count > show:
            console.print(Text(f"    ... and {count - show} more", style="dim"))
        console.print(Text(f"    -> {kind.advice}", style="cyan"))
    errors, warnings = (checkup.findings.count(severity) for severity in ("error", "warning"))
    console.print(Text(f"errors: {errors}, warnings: {warnings}"))
