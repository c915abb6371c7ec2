"""What a run folder tells of a training: its curves and its settings."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

METRICS, SETTINGS = "metrics.csv", "config.yaml"
MAX_BYTES = 4 * 2**20    # of either file; weights may lie beside files of a stranger


@dataclass(frozen=True)
class History:
    """The table of a run, by column, and its settings as they are written."""

    columns: dict[str, list[float]]     # NaN where nothing was to be counted
    settings: str

    @property
    def epochs(self) -> list[float]:
        return self.columns["epoch"]


def read_history(folder: Path) -> History | None:
    """What the folder tells, or None where no run has left its table.

    Raises ValueError, which names file and line, for a table that cannot be read.
    """
    file = folder / METRICS
    if not file.is_file():
        return None
    reader = csv.reader(io.StringIO(_text(file), newline=""))
    try:
        header = next(reader, [])
        # A column that came with a resumed run is empty in the rows before.
        rows = [[float(value or "nan") for _, value in zip(header, row, strict=True)] for row in reader]
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{file}: line {reader.line_num}: not a row of numbers as the first line has names "
                         f"({error})") from None
    columns = {name: list(values) for name, values in zip(header, zip(*rows, strict=True), strict=False)}
    if not all(map(math.isfinite, columns.get("epoch", [math.nan]))):
        raise ValueError(f"{file}: expected a column epoch of numbers, got {', '.join(header)[:200] or 'nothing'}")
    settings = folder / SETTINGS
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
