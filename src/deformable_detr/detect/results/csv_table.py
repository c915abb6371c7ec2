"""A table with a row for each detection, whose texts no spreadsheet takes for formulas."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deformable_detr.detect.results.saved import Add, Classes, Saved
from deformable_detr.detect.results.whole_text import whole_text

COLUMNS = ("file", "frame", "track", "width", "height", "label", "name", "category_id", "score", "x0", "y0", "x1", "y1")
QUOTE = "'"
# A spreadsheet runs a cell that begins with one of these, or with the wide forms of the first four.
STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def harmless(text: str) -> str:
    """The text with a ' before it, where a spreadsheet would run it, or where it begins with a ' itself.

    Who reads the cell takes one ' from its start.
    """
    return QUOTE + text if text.startswith((QUOTE, *STARTS)) else text


@contextmanager
def csv_table(path: Path, classes: Classes) -> Iterator[Add]:
    """Numbers are bare and texts quoted, so that no text falls apart where another sign separates the cells."""
    with whole_text(path) as write:
        write(_rows([COLUMNS]))

        def add(saved: Saved) -> None:
            found = saved.detections
            height, width = found.image_size
            tracks = [""] * len(found) if found.tracks is None else found.tracks.tolist()
            write(_rows([
                (harmless(saved.file), saved.place.get("frame", ""), track, width, height, each.label,
                 harmless(classes.names[each.label]), classes.category_ids[each.label], round(each.score, 6),
                 *(round(edge, 3) for edge in each.box.astype(float).tolist()))
                for each, track in zip(found, tracks, strict=True)]))
        yield add


def _rows(rows: list[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(rows)
    return text.getvalue()
