"""A text file of all images, which is there whole at the end, or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deformable_detr.files import writing_whole

Write = Callable[[str], None]


@contextmanager
def whole_text(path: Path) -> Iterator[Write]:
    """What writes UTF-8 text. After an OSError it takes no more: the file would have a gap, and is not kept."""
    failed: OSError | None = None

    def write(text: str) -> None:
        nonlocal failed
        if failed is not None:
            raise failed
        try:
            file.write(text.encode(errors="backslashreplace"))
        except OSError as error:
            failed = error
            raise

    with writing_whole(path) as file:
        yield write
        if failed is not None:
            raise failed


@contextmanager
def whole_list(path: Path, start: str = "[", end: str = "]") -> Iterator[Write]:
    """What writes the elements of a JSON list, one a line."""
    comma = ""

    def write_element(text: str) -> None:
        nonlocal comma
        write(f"{comma}\n{text}")
        comma = ","

    with whole_text(path) as write:
        write(start)
        yield write_element
        write(f"\n{end}\n")
