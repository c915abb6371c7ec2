"""The files of an export take the place of those of an earlier one, and of nothing else."""

import mmap
from pathlib import Path

from deformable_detr.export.metadata import ENTRY
from deformable_detr.export.sessions import digest_of, digest_of_weights
from deformable_detr.files import check_regular, write_together

# How each kind of file spells the entry that only an export writes. Its name alone is in other files too: in paths of
# annotations, and among the modules of other code bases.
MARKS = {".onnx": b"\n\x0f" + ENTRY.encode() + b"\x12", ".xml": b"<" + ENTRY.encode() + b" value=",
         ".pt2": b"extra/" + ENTRY.encode()}


def check_replaceable(path: Path) -> None:
    """Raise ValueError where somebody's own file is: annotations and much else end in .xml too.

    Raises OSError for what is no regular file.
    """
    suffix, weights = path.suffix.lower(), path.with_suffix(".bin")
    is_there = check_regular(path)
    if is_there and not _contains(path, MARKS[suffix]):
        raise ValueError(f"{path}: expected a new file, or one that an export has written")
    if suffix == ".xml" and check_regular(weights):
        digest = digest_of_weights(path.read_bytes()) if is_there else ""
        if digest is not None and digest != digest_of(weights):
            raise ValueError(f"{weights}: expected a new file, or the weights of {path.name}")


def _contains(path: Path, mark: bytes) -> bool:
    """Without reading all of a large file into memory."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(mark) >= 0


def replace_files(written: Path, path: Path) -> None:
    """`written` goes to `path`, and the weights beside it, if there are any, beside that: both or none."""
    parts = {written.with_suffix(".bin"): path.with_suffix(".bin"), written: path}
    write_together({there: part.read_bytes() for part, there in parts.items() if part.exists()})
