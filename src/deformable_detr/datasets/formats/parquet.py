"""Hugging Face data sets as parquet files, in which each row holds the bytes of an image and its objects."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path, PurePosixPath

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.building import AnnotationBuilder, check_image_size, measured, with_possible_areas
from deformable_detr.datasets.findings import DataError, EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.coco import object_entries, read_object_entry, report_ignored
from deformable_detr.datasets.formats.parquet_file import ParquetFile, ParquetRow, open_parquet
from deformable_detr.datasets.formats.source import DataSource
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import check_name, list_files
from deformable_detr.datasets.splits import files_by_split
from deformable_detr.images import ImageError
from deformable_detr.text import quoted


@dataclass(frozen=True)
class ParquetStore:
    """Images in the rows of files. The id of an image is its number over all rows."""

    files: tuple[ParquetFile, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """The id of the first image of every file."""
        return (0, *accumulate(file.num_rows for file in self.files))[:-1]

    def source(self, image: ImageRecord) -> bytes:
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
        file, number = self._row(image)
        return Place(file.file, number)

    def _row(self, image: ImageRecord) -> tuple[ParquetFile, int]:
        index = bisect_right(self.starts, image.id) - 1
        return self.files[index], image.id - self.starts[index]


@dataclass(frozen=True)
class ParquetFolder(DataSource[tuple[Path, ...]]):
    """A folder with parquet files, sorted into splits by their names or their folders'."""

    format = "parquet"
    layout = "data/train-00000-of-00001.parquet"

    @classmethod
    def find(cls, folder: Path, findings: Findings) -> "ParquetFolder | None":
        files = files_by_split(folder, list_files(folder, {".parquet"}, folder, findings))
        return cls(folder, files) if files else None

    def read(self, split: str, findings: Findings) -> Annotations:
        store = ParquetStore(tuple(map(open_parquet, self.places[split])))
        first = store.files[0]
        builder = AnnotationBuilder(dict(enumerate(first.names)))
        for start, file in zip(store.starts, store.files, strict=True):
            if file.names != first.names:
                stop(Fault.ANNOTATION_FILE, Place(file.file), f"expected the classes of {first.file}, "
                     f"{quoted(first.names)}, got {quoted(file.names)}")
            for number, row in enumerate(self.progress(file.rows(), file.num_rows, "reading rows")):
                try:
                    builder.start(_read_image(row, start + number), file.file)
                except EntryError as fault:
                    findings.add(fault.kind, Place(file.file, number), fault.message)
                else:
                    _read_objects(row, file, number, builder, findings)
        if not builder.num_images:
            stop(Fault.NO_IMAGES, Place(first.file), "expected rows with an image, got none")
        return with_possible_areas(builder.annotations(self.folder, store), findings)


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


def _read_image(row: ParquetRow, identity: int) -> ImageRecord:
    name = PurePosixPath(row.path or f"{identity}").name
    check_name(name)
    if row.size is None:
        content = row.content or b""
        check_image_size(len(content))
        return measured(identity, name, content)
    if not all(type(side) is int and side > 0 for side in row.size):
        raise EntryError(Fault.ENTRY, f"expected a positive width and height, got {quoted(row.size)}")
    return ImageRecord(identity, name, *row.size)


def _read_objects(row: ParquetRow, file: ParquetFile, number: int, builder: AnnotationBuilder,
                  findings: Findings) -> None:
    """Add the objects of a row without those at fault, which are reported."""
    coco_key = {file.box: "bbox", file.category: "category_id", file.crowd: "iscrowd"}
    for index, entry in enumerate(object_entries(row.objects)):
        place = Place(file.file, number, f"object {index}")
        fields = {coco_key.get(name, name): value for name, value in entry.items() if value is not None}
        try:
            found = read_object_entry({**fields, "id": index}, builder.class_of, builder.num_images - 1)
        except EntryError as fault:
            findings.add(fault.kind, place, fault.message)
        else:
            report_ignored(fields, place, findings)
            builder.add(found.label, found.box, area=found.area, crowd=found.crowd, line=number)
