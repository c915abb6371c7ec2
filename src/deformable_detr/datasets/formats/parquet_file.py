"""One parquet file of a Hugging Face data set: which columns hold images and objects, and reading them by rows."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

from deformable_detr.datasets.findings import DataError, Place, stop
from deformable_detr.datasets.formats.source import check_class_names
from deformable_detr.datasets.kinds import Fault
from deformable_detr.text import quoted

# Usual names of the columns.
IMAGE_COLUMNS = ("image", "img")
OBJECT_COLUMNS = ("objects", "annotations", "labels")
BOX_COLUMNS = ("bbox", "bboxes", "boxes", "box")
CLASS_COLUMNS = ("category", "categories", "category_id", "label", "labels", "class")
CROWD_COLUMNS = ("iscrowd", "is_crowd", "crowd")

ROWS_AT_ONCE = 32

# Compressed, and stored once for many rows, a few kilobytes can become gigabytes.
BATCH_BYTES = 2**26             # of a row group that is read more than a row at a time
LARGEST_GROUP = 2**29           # bytes of the columns that are read; more only where the file itself is large:
LARGEST_RATIO = 20              # times what the group takes in the file
LARGEST_ROW = 2**22             # values; each becomes a Python object


@dataclass(frozen=True)
class ParquetRow:
    """One image."""

    path: str | None                        # the image's name
    content: bytes | None                   # of the image's file; only where the row has no size
    size: tuple[Any, Any] | None            # (width, height), where the row has them
    objects: Any                            # a list of mappings, or a mapping of lists


@dataclass(frozen=True)
class ParquetFile:
    """A file, its columns, and the names of its classes."""

    file: Path
    group_ends: tuple[int, ...]             # number of rows up to the end of each row group
    image: str                              # columns
    objects: str
    box: str                                # columns of the objects
    category: str
    crowd: str | None
    has_sizes: bool
    names: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """Number of images."""
        return self.group_ends[-1] if self.group_ends else 0

    def rows(self) -> Iterator[ParquetRow]:
        """Every row; the images themselves are read only where there are no columns with their sizes."""
        sizes = ["width", "height"] if self.has_sizes else [f"{self.image}.bytes"]
        columns = [f"{self.image}.path", self.objects, *sizes]
        for row in self._read(columns, range(len(self.group_ends))):
            image = row[self.image] or {}
            yield ParquetRow(image.get("path"), image.get("bytes"),
                             (row["width"], row["height"]) if self.has_sizes else None, row[self.objects])

    def content(self, number: int) -> bytes | None:
        """The bytes of the image in a row, for which a whole row group is read. Raises DataError."""
        group = next(index for index, end in enumerate(self.group_ends) if number < end)
        start = self.group_ends[group - 1] if group else 0
        for index, row in enumerate(self._read([f"{self.image}.bytes"], [group]), start=start):
            if index == number:
                return (row[self.image] or {}).get("bytes")
        raise DataError(f"{self.file}: row {number} is not there")

    def contents(self) -> Iterator[bytes | None]:
        """The bytes of every image. Raises DataError."""
        for row in self._read([f"{self.image}.bytes"], range(len(self.group_ends))):
            yield (row[self.image] or {}).get("bytes")

    def _read(self, columns: Sequence[str], groups: Sequence[int]) -> Iterator[dict[str, Any]]:
        with _arrow_errors(self.file) as parquet, parquet.ParquetFile(self.file, memory_map=True) as opened:
            for group in groups:
                rows_at_once = self._rows_at_once(opened.metadata.row_group(group), columns, group)
                for batch in opened.iter_batches(rows_at_once, row_groups=[group], columns=list(columns),
                                                 use_threads=False):
                    yield from self._rows_of(batch, group)

    def _rows_at_once(self, metadata: Any, columns: Sequence[str], group: int) -> int:
        """How many rows of a group fit into memory together. Raises DataError where its size is absurd."""
        chunks = [metadata.column(index) for index in range(metadata.num_columns)]
        chunks = [chunk for chunk in chunks
                  if any(f"{chunk.path_in_schema}.".startswith(f"{column}.") for column in columns)]
        size = sum(max(chunk.total_uncompressed_size, 8 * chunk.num_values) for chunk in chunks)
        packed = sum(chunk.total_compressed_size for chunk in chunks)
        if size > max(LARGEST_GROUP, LARGEST_RATIO * min(packed, self.file.stat().st_size)):
            stop(Fault.ANNOTATION_FILE, Place(self.file),
                 f"row group {group}: {packed:,} bytes would become {size:,}; expected at most {LARGEST_GROUP:,} "
                 f"or {LARGEST_RATIO} times as many")
        return min(max(BATCH_BYTES // max(size, 1), 1), ROWS_AT_ONCE)

    def _rows_of(self, batch: Any, group: int) -> Iterator[dict[str, Any]]:
        """The rows as Python objects, in ten times the memory. Raises DataError for a row of too many values."""
        if sum(map(_num_values, batch.columns)) <= LARGEST_ROW:
            yield from batch.to_pylist()
            return
        for row in (batch.slice(index, 1) for index in range(batch.num_rows)):
            num_values = sum(map(_num_values, row.columns))
            if num_values > LARGEST_ROW:
                stop(Fault.ANNOTATION_FILE, Place(self.file),
                     f"row group {group}: a row of {num_values:,} values, expected at most {LARGEST_ROW:,}")
            yield from row.to_pylist()


def open_parquet(file: Path) -> ParquetFile:
    """The columns of a file. Raises DataError for another file, and without images, boxes or names of classes."""
    with _arrow_errors(file) as parquet, parquet.ParquetFile(file, memory_map=True) as opened:
        schema, metadata = opened.schema_arrow, opened.metadata
        group_ends = accumulate(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
        columns = {field.name: _children(field.type) for field in schema}
        features = _features(schema.metadata or {})
    image = _first(IMAGE_COLUMNS, [name for name, inner in columns.items() if {"bytes", "path"} <= set(inner)])
    objects = _first(OBJECT_COLUMNS, [name for name, inner in columns.items() if set(inner) & set(BOX_COLUMNS)])
    place = Place(file)
    if image is None or objects is None:
        stop(Fault.ANNOTATION_FILE, place, f"expected a column of images (bytes and path) and one of objects with "
             f"their bbox, got {quoted(columns)}")
    box, category, crowd = (next((name for name in names if name in columns[objects]), None)
                            for names in (BOX_COLUMNS, CLASS_COLUMNS, CROWD_COLUMNS))
    if box is None or category is None:
        stop(Fault.ANNOTATION_FILE, place, f"{objects}: expected bbox and category, got {quoted(columns[objects])}")
    names = _class_names(features.get(objects), category)
    if not isinstance(names, list) or not names:
        stop(Fault.NAMES_MISSING, place, f"{objects}.{category}: expected a ClassLabel with its names in the file's "
             f"metadata, as the library `datasets` writes it")
    checked = check_class_names(file, dict(enumerate(names)))
    return ParquetFile(file, tuple(group_ends), image, objects, box, category, crowd,
                       {"width", "height"} <= set(columns), tuple(checked.values()))


@contextmanager
def _arrow_errors(file: Path) -> Iterator[Any]:
    """pyarrow's parquet module; what goes wrong with it becomes a DataError."""
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        stop(Fault.ANNOTATION_FILE, Place(file), "reading it needs pyarrow: pip install 'deformable-detr[parquet]'")
    try:
        yield parquet
    except DataError:
        raise
    except (arrow.ArrowException, OSError, ValueError) as error:    # ValueError: texts that are not UTF-8
        stop(Fault.ANNOTATION_FILE, Place(file), f"cannot be read: {' '.join(str(error).split())}")


def _num_values(array: Any) -> int:
    """The number of values in a pyarrow array, including those within its lists and structures."""
    inner = array.flatten() if hasattr(array, "flatten") else []
    return len(array) + sum(map(_num_values, inner if isinstance(inner, list) else [inner]))


def _children(kind: Any) -> list[str]:
    """The names of a column's fields, whether it is a structure or a list of structures."""
    while hasattr(kind, "value_type") and not hasattr(kind, "names"):
        kind = kind.value_type
    return [kind.field(index).name for index in range(kind.num_fields)]


def _first(usual: Sequence[str], found: Sequence[str]) -> str | None:
    """The column with a usual name, or else the first one found."""
    named = [name for name in usual if name in found]
    return named[0] if named else found[0] if found else None


def _features(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """The description of the columns by the library `datasets`."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(feature: Any, category: str) -> Any:
    """The names of the ClassLabel `category`, within any number of lists and structures."""
    if isinstance(feature, list):
        feature = feature[0] if feature else None
    if not isinstance(feature, dict):
        return None
    if category in feature:
        inner = feature[category]
        while isinstance(inner, dict) and "names" not in inner:
            inner = inner.get("feature")
        return inner["names"] if isinstance(inner, dict) else None
    return _class_names(feature.get("feature"), category)
