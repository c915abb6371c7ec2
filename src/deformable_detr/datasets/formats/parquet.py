"""Hugging Face data sets as parquet files, which hold a row an image with its bytes and its objects."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import DataError, EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.parquet_file import ParquetFile, ParquetRow, open_parquet
from deformable_detr.datasets.formats.rows import Rows
from deformable_detr.datasets.formats.shard import MAX_IMAGE_BYTES
from deformable_detr.datasets.formats.source import is_number, split_of
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.layout import check_name, list_files
from deformable_detr.images import ImageError, open_image, upright_size
from deformable_detr.progress import show_progress
from deformable_detr.text import quoted

EXPECTED = "data/train-00000-of-00001.parquet"


@dataclass(frozen=True)
class ParquetStore:
    """Images in the rows of files. The id of an image is its number over all rows."""

    files: tuple[ParquetFile, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """The id of the first image of every file."""
        return (0, *accumulate(file.num_rows for file in self.files))[:-1]

    def source(self, image: ImageRecord) -> bytes:
        """The bytes of the image's file. Raises ImageError."""
        file, number = self._row(image)
        try:
            content = file.content(number)
        except DataError as error:
            raise ImageError(str(error)) from error
        if not content:
            raise ImageError(f"{file.file}:{number}: no bytes of an image")
        return content

    def sources(self, images: Sequence[ImageRecord]) -> Iterator[bytes]:
        """All of them in one pass over the files; their ids must ascend."""
        for file, rows in groupby(map(self._row, images), key=lambda row: row[0]):
            yield from _contents(file, [number for _, number in rows])

    def place(self, image: ImageRecord) -> Place:
        """File and row."""
        file, number = self._row(image)
        return Place(file.file, number)

    def _row(self, image: ImageRecord) -> tuple[ParquetFile, int]:
        index = bisect_right(self.starts, image.id) - 1
        return self.files[index], image.id - self.starts[index]


@dataclass(frozen=True)
class ParquetFolder:
    """A folder with parquet files, which belong to splits by their names or their folders'."""

    folder: Path
    files: dict[str, tuple[Path, ...]]      # by split

    format = "parquet"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have files."""
        return tuple(self.files)

    def read(self, split: str, findings: Findings) -> Annotations:
        """The split without rows at fault, which are reported. Raises DataError."""
        store = ParquetStore(tuple(map(open_parquet, self.files[split])))
        first, rows = store.files[0], Rows()
        for start, file in zip(store.starts, store.files, strict=True):
            if file.names != first.names:
                stop(Kind.ANNOTATION_FILE, Place(file.file), f"expected the classes of {first.file}, "
                     f"{quoted(first.names)}, got {quoted(file.names)}")
            for number, row in enumerate(show_progress(file.rows(), file.num_rows, "reading rows")):
                try:
                    rows.start(_read_image(row, start + number), file.file)
                except EntryError as fault:
                    findings.add(fault.kind, Place(file.file, number), fault.message)
                else:
                    _read_objects(row, file, number, rows, findings)
        if not rows.num_images:
            stop(Kind.NO_IMAGES, Place(first.file), "expected rows with an image, got none")
        return rows.annotations(self.folder, first.names, tuple(range(len(first.names))), store)


def _contents(file: ParquetFile, numbers: Sequence[int]) -> Iterator[bytes]:
    """The bytes of the images in these rows, which ascend; empty from where the file is damaged."""
    left = deque(numbers)
    try:
        for number, content in enumerate(file.contents()):
            if left and number == left[0]:
                left.popleft()
                yield content or b""
    except DataError:
        pass
    yield from [b""] * len(left)


def find_parquet(folder: Path, findings: Findings) -> ParquetFolder | None:
    """The parquet files of a folder, by split."""
    files: dict[str, tuple[Path, ...]] = {}
    for name in list_files(folder, {".parquet"}, folder, findings):
        split = split_of(PurePath(name))
        files[split] = (*files.get(split, ()), folder / name)
    return ParquetFolder(folder, files) if files else None


def _read_image(row: ParquetRow, identity: int) -> ImageRecord:
    name = PurePosixPath(row.path or f"{identity}").name
    check_name(name)
    if row.size is None:
        if len(row.content or b"") > MAX_IMAGE_BYTES:
            raise EntryError(Kind.PICTURE_UNREADABLE, f"more than {MAX_IMAGE_BYTES:,} bytes")
        try:
            with open_image(row.content or b"") as opened:
                height, width = upright_size(opened)
        except ImageError as error:
            raise EntryError(Kind.PICTURE_UNREADABLE, error.reason_for(b"")) from error
    else:
        width, height = row.size
    if not all(type(side) is int and side > 0 for side in (width, height)):
        raise EntryError(Kind.ENTRY, f"expected a positive width and height, got {quoted((width, height))}")
    return ImageRecord(identity, name, width, height)


def _read_objects(row: ParquetRow, file: ParquetFile, number: int, rows: Rows, findings: Findings) -> None:
    """Take the objects of a row without those at fault, which are reported."""
    for index, entry in enumerate(_entries(row.objects)):
        box, label = entry.get(file.box), entry.get(file.category)
        place = Place(file.file, number, f"object {index}")
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            findings.add(Kind.ENTRY, place, f"{file.box}: expected x, y, width, height, got {quoted(box)}")
        elif type(label) is not int or not 0 <= label < len(file.names):
            findings.add(Kind.CLASS_UNKNOWN, place,
                         f"{file.category}: expected a class in 0..{len(file.names) - 1}, got {quoted(label)}")
        else:
            rows.add(label, box, number, crowd=bool(file.crowd and entry.get(file.crowd)))


def _entries(objects: Any) -> list[dict[str, Any]]:
    """The objects of a row one by one, where they may be a mapping of lists; a short list ends in None."""
    if isinstance(objects, dict):
        columns = {name: values for name, values in objects.items() if isinstance(values, list)}
        count = max(map(len, columns.values()), default=0)
        return [{name: values[index] if index < len(values) else None for name, values in columns.items()}
                for index in range(count)]
    return [entry for entry in objects or [] if isinstance(entry, dict)]
