"""WebDataset shards: a folder of tar archives that are read where they lie.

They are not streamed. The places of all images are noted when the data set is opened; then any image can be read,
as from a folder, and who reads which is decided as for any other format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
from jaxtyping import Int32, Int64

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.documents import MAX_BYTES, DocumentError, parse_json, read_bytes
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.coco_entries import Row, read_category
from deformable_detr.datasets.formats.coco_objects import Objects, joined, objects_of
from deformable_detr.datasets.formats.shard import LABELS, ShardReader, ShardSample, find_samples, read_member
from deformable_detr.datasets.formats.source import checked_names, split_of
from deformable_detr.datasets.formats.tar_members import read_members
from deformable_detr.datasets.image_list import ImageList, ImageRecord
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.layout import Fence, list_files
from deformable_detr.images import ImageError
from deformable_detr.progress import show_progress
from deformable_detr.text import quoted

CLASS_FILES = ("classes.json", "categories.json")
CLASSES_EXPECTED = 'a list of classes, as in [{"id": 1, "name": "cat"}]'
EXPECTED = f"train-000000.tar, not compressed, of 0001.jpg, 0001.json, ..., beside {CLASS_FILES[0]}"
SUFFIXES = frozenset({".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst"})    # the compressed ones are refused by name
NUM_TRIED = 100     # members that tell whether an archive is a shard


@dataclass(frozen=True)
class ShardStore:
    """Images in archives. The id of an image is its row in these arrays."""

    files: tuple[Path, ...]
    shard: Int32[np.ndarray, "P"]       # into `files`
    starts: Int64[np.ndarray, "P"]      # bytes
    sizes: Int64[np.ndarray, "P"]

    def source(self, image: ImageRecord) -> bytes:
        """The bytes of the image's file. Raises ImageError."""
        file, start, size = self._where(image)
        try:
            return read_member(file, start, size)
        except OSError as error:
            raise ImageError(f"{self.place(image)}: {error.strerror or error}") from error

    def sources(self, images: Sequence[ImageRecord]) -> Iterator[bytes]:
        """All of them."""
        for image in images:
            try:
                yield self.source(image)
            except ImageError:
                yield b""

    def place(self, image: ImageRecord) -> Place:
        """Archive and member."""
        return Place(self._where(image)[0], entry=image.file_name)

    def _where(self, image: ImageRecord) -> tuple[Path, int, int]:
        row = image.id
        return self.files[self.shard[row]], int(self.starts[row]), int(self.sizes[row])


@dataclass(frozen=True)
class ShardFolder:
    """A folder of shards, which belong to splits by their names or their folders'."""

    folder: Path
    names: dict[int, str]                   # of the classes, by id
    files: dict[str, tuple[Path, ...]]      # by split

    format = "WebDataset"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have shards."""
        return tuple(self.files)

    def read(self, split: str, findings: Findings) -> Annotations:
        """The split without samples at fault, which are reported. Raises DataError."""
        files = self.files[split]
        class_ids = sorted(self.names)
        class_of = {identity: index for index, identity in enumerate(class_ids)}
        parts, count = [], 0
        for file in show_progress(files, len(files), "reading shards"):
            parts.append(_read_shard(ShardReader(file, class_of, findings), count))
            count += len(parts[-1].images)
        if not count:
            stop(Kind.NO_IMAGES, Place(files[0]), "expected images with JSON of the same name, got none")
        shard = np.repeat(np.arange(len(files), dtype=np.int32), [len(part.images) for part in parts])
        store = ShardStore(files, shard, *np.concatenate([part.where for part in parts]).T.copy())
        sources = tuple(file for file, part in zip(files, parts, strict=True) for _ in part.images)
        images = ImageList.of(image for part in parts for image in part.images)
        names = tuple(self.names[identity] for identity in class_ids)
        return Annotations(self.folder, names, tuple(class_ids), images, *joined([part.objects for part in parts]),
                           store=store, sources=sources)


def find_shards(folder: Path, findings: Findings) -> ShardFolder | None:
    """The shards of a folder, by split. Raises DataError where nothing says what their classes are."""
    names = [name for name in list_files(folder, SUFFIXES, folder, findings) if _is_archive(PurePath(name))]
    # Other archives lie about in folders too: of images alone, of a data set that is still to be unpacked.
    if not names or not (_class_file(folder) or any(_holds_labels(folder / name) for name in names)):
        return None
    files: dict[str, tuple[Path, ...]] = {}
    for name in names:
        split = split_of(PurePath(name))
        files[split] = (*files.get(split, ()), folder / name)
    return ShardFolder(folder, _read_classes(folder), files)


@dataclass(frozen=True)
class _Part:
    """What one shard says."""

    images: list[ImageRecord]
    where: Int64[np.ndarray, "P 2"]     # first byte and number of bytes of each
    objects: Objects


def _read_shard(reader: ShardReader, first: int) -> _Part:
    """The samples of a shard; their ids begin with `first`."""
    images: list[ImageRecord] = []
    used: list[ShardSample] = []
    rows: list[Row] = []
    for sample in find_samples(reader.file, reader.findings):
        try:
            image, objects = reader.read(sample, first + len(images))
        except EntryError as fault:
            member = sample.image if fault.kind is Kind.PICTURE_UNREADABLE else sample.labels
            reader.findings.add(fault.kind, Place(reader.file, entry=member.name), fault.message)
            continue
        images.append(image)
        used.append(sample)
        rows += objects
    where = np.array([(sample.image.start, sample.image.size) for sample in used], np.int64).reshape(-1, 2)
    return _Part(images, where, objects_of(rows))


def _is_archive(name: PurePath) -> bool:
    """Whether it is called as a tar archive is, compressed or not."""
    return name.suffix.lower() in (".tar", ".tgz") or name.stem.lower().endswith(".tar")


def _holds_labels(file: Path) -> bool:
    """Whether an archive begins as a shard does."""
    members = islice(read_members(file, Findings()), NUM_TRIED)
    return any(PurePosixPath(member.name).suffix.lower() == LABELS for member in members)


def _class_file(folder: Path) -> Path | None:
    return next((folder / name for name in CLASS_FILES if (folder / name).is_file()), None)


def _read_classes(folder: Path) -> dict[int, str]:
    """The names of the classes by their ids. Raises DataError."""
    file = _class_file(folder)
    if file is None:
        stop(Kind.NAMES_MISSING, Place(folder / CLASS_FILES[0]), f"expected {CLASSES_EXPECTED}, got nothing")
    try:
        Fence(folder).holds(file)
        content = parse_json(read_bytes(file, MAX_BYTES))
        if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
            raise EntryError(Kind.ANNOTATION_FILE, f"expected {CLASSES_EXPECTED}, got {quoted(content)}")
        classes = list(map(read_category, content))
    except EntryError as fault:
        stop(fault.kind, Place(file), fault.message)
    except DocumentError as error:
        stop(Kind.ANNOTATION_FILE, Place(file, error.line), str(error))
    if len(dict(classes)) < len(classes):
        stop(Kind.ID_TWICE, Place(file), f"expected each id once, got {quoted([identity for identity, _ in classes])}")
    return checked_names(file, dict(classes))
