"""The lines of `ddetr detect --json`, in a file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deformable_detr.detect.results.saved import Add, Classes, Saved
from deformable_detr.detect.results.whole_text import whole_text


@contextmanager
def json_lines(path: Path, classes: Classes) -> Iterator[Add]:
    """A line for each image."""
    with whole_text(path) as write:
        def add(saved: Saved) -> None:
            found = saved.detections.to_dict(classes.category_ids)
            write(json.dumps({"file": saved.file, **saved.place, **found}) + "\n")
        yield add
