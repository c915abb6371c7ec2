"""The files of a run folder that a report shows: its metrics and its settings."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

METRICS_FILE, SETTINGS_FILE, REPORT_FILE = "metrics.csv", "config.yaml", "report.html"
MAX_BYTES = 4 * 2**20    # of either file, which need not be a run's: weights can be in any folder


@dataclass(frozen=True)
class History:
    """A training run: its table by column, and the text of its settings."""

    columns: dict[str, list[float]]     # "epoch" among them; NaN for an empty cell
    settings: str


def read_history(folder: Path) -> History | None:
    """The history of the run in a folder, or None where there is no table of metrics.

    Raises ValueError, which names file and line, for a table that cannot be read.
    """
    file = folder / METRICS_FILE
    if not file.is_file():
        return None
    reader = csv.reader(io.StringIO(_text(file), newline=""))
    try:
        header = next(reader, [])
        # A column that a resumed run has added is empty in the rows before.
        rows = [[float(value or "nan") for _, value in zip(header, row, strict=True)] for row in reader]
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{file}: line {reader.line_num}: expected a number for each column of the first line "
                         f"({error})") from None
    columns = {name: list(values) for name, values in zip(header, zip(*rows, strict=True), strict=False)}
    if not all(map(math.isfinite, columns.get("epoch", [math.nan]))):
        raise ValueError(f"{file}: expected a column epoch of numbers, got {', '.join(header)[:200] or 'nothing'}")
    settings = folder / SETTINGS_FILE
    return History(columns, _text(settings) if settings.is_file() else "")


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES} bytes")
        return content.decode()
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None
