"""WebDataset shards: a folder of tar archives that are read in place.

In an archive an image and its JSON share a key, as in 0001.jpg and 0001.json.

They are not streamed. The positions of all images are noted when the data set is opened; then any image can be read,
as from a folder, and who reads which is decided as for any other format.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.building import AnnotationBuilder, check_image_size, measured, with_possible_areas
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.coco import (
    check_entry,
    read_category_entry,
    read_image_entry,
    read_object_entry,
    report_ignored,
)
from deformable_detr.datasets.formats.source import DataSource, check_class_names
from deformable_detr.datasets.formats.tar_members import Member, read_member, read_members
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import Fence, list_files, spelling
from deformable_detr.datasets.splits import files_by_split
from deformable_detr.documents import MAX_BYTES, DocumentError, parse_json, read_bytes
from deformable_detr.images import SUFFIXES, ImageError
from deformable_detr.text import quoted

CLASS_FILES = ("classes.json", "categories.json")
CLASSES_EXPECTED = 'a list of classes, as in [{"id": 1, "name": "cat"}]'
ARCHIVE_SUFFIXES = frozenset({".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst"})    # compressed ones are refused by name
NUM_TRIED = 100     # members that show whether an archive is a shard
MAX_LABEL_BYTES = 4 * 2**20     # of an image's JSON; outlines included, some kilobytes are usual
LABELS = ".json"


@dataclass(frozen=True)
class ShardStore:
    """Images in archives. The id of an image is its row in these arrays."""

    files: tuple[Path, ...]
    shard: Int32[np.ndarray, "P"]       # into `files`
    starts: Int64[np.ndarray, "P"]      # bytes
    sizes: Int64[np.ndarray, "P"]

    def source(self, image: ImageRecord) -> bytes:
        file = self.files[self.shard[image.id]]
        try:
            return read_member(file, int(self.starts[image.id]), int(self.sizes[image.id]))
        except OSError as error:
            raise ImageError(f"{self.place(image)}: {error.strerror or error}") from error

    def sources(self, images: Sequence[ImageRecord]) -> Iterator[bytes]:
        for image in images:
            try:
                yield self.source(image)
            except ImageError:
                yield b""

    def place(self, image: ImageRecord) -> Place:
        return Place(self.files[self.shard[image.id]], entry=image.file_name)


@dataclass(frozen=True)
class ShardFolder(DataSource[tuple[Path, ...]]):
    """A folder of shards, sorted into splits by their names or their folders'."""

    names: dict[int, str] = field(kw_only=True)     # of the classes, by id

    format = "WebDataset"
    layout = f"train-000000.tar, not compressed, of 0001.jpg, 0001.json, ..., beside {CLASS_FILES[0]}"

    @classmethod
    def find(cls, folder: Path, findings: Findings) -> "ShardFolder | None":
        """The shards of a folder, by split. Raises DataError where the names of their classes are missing."""
        files = [name for name in list_files(folder, ARCHIVE_SUFFIXES, folder, findings) if _is_archive(PurePath(name))]
        # A folder may hold other archives too: of images without labels, of a data set that is still to be unpacked.
        if not files or not (_class_file(folder) or any(_holds_labels(folder / name) for name in files)):
            return None
        return cls(folder, files_by_split(folder, files), names=_read_classes(folder))

    def read(self, split: str, findings: Findings) -> Annotations:
        files = self.places[split]
        builder = AnnotationBuilder(self.names)
        where: list[tuple[int, int, int]] = []
        for index, file in enumerate(self.progress(files, len(files), "reading shards")):
            for sample in find_samples(file, findings):
                try:
                    read_sample(file, sample, builder, findings)
                except EntryError as fault:
                    member = sample.image if fault.kind is Fault.PICTURE_UNREADABLE else sample.labels
                    findings.add(fault.kind, Place(file, entry=member.name), fault.message)
                else:
                    where.append((index, sample.image.start, sample.image.size))
        if not where:
            stop(Fault.NO_IMAGES, Place(files[0]), "expected images with JSON of the same name, got none")
        shard, starts, sizes = np.array(where, np.int64).T.copy()
        store = ShardStore(files, shard.astype(np.int32), starts, sizes)
        return with_possible_areas(builder.annotations(self.folder, store), findings)


def _is_archive(name: PurePath) -> bool:
    """Whether it has the name of a tar archive, compressed or not."""
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
        stop(Fault.NAMES_MISSING, Place(folder / CLASS_FILES[0]), f"expected {CLASSES_EXPECTED}, got nothing")
    try:
        Fence(folder).check(file)
        content = parse_json(read_bytes(file, MAX_BYTES))
        if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
            raise EntryError(Fault.ANNOTATION_FILE, f"expected {CLASSES_EXPECTED}, got {quoted(content)}")
        classes = list(map(read_category_entry, content))
    except EntryError as fault:
        stop(fault.kind, Place(file), fault.message)
    except DocumentError as error:
        stop(Fault.ANNOTATION_FILE, Place(file, error.line), str(error))
    if len(dict(classes)) < len(classes):
        stop(Fault.ID_TWICE, Place(file), f"expected each id once, got {quoted([number for number, _ in classes])}")
    return check_class_names(file, dict(classes))


@dataclass(frozen=True, slots=True)
class ShardSample:
    """An image and its annotations, as members of the shard."""

    image: Member
    labels: Member


def find_samples(file: Path, findings: Findings) -> list[ShardSample]:
    """The images with JSON of a shard, in its order; images and JSON without the other, and copies, are reported."""
    images: dict[str, Member] = {}
    labels: dict[str, Member] = {}
    for member in read_members(file, findings):
        path = PurePosixPath(spelling(member.name))
        suffix, key = path.suffix.lower(), path.with_suffix("").as_posix()
        if suffix == LABELS or suffix in SUFFIXES:
            first = (labels if suffix == LABELS else images).setdefault(key, member)
            if first is not member:
                findings.add(Fault.ID_TWICE, Place(file, entry=member.name),
                             f"expected {key} once, got it again after {first.name}")
    whole = images.keys() & labels.keys()
    for key, member in {**images, **labels}.items():
        is_part = _is_part(key, whole)
        if key in whole and is_part and member is labels[key]:
            findings.add(Fault.OTHER_ANNOTATIONS, Place(file, entry=member.name),
                         "by its name up to the first dot a part of another sample")
        if key in whole or is_part:
            continue
        kind, message = ((Fault.PICTURE_UNLISTED, f"expected {key}{LABELS}, got nothing") if key in images else
                         (Fault.PICTURE_MISSING, f"no image {key} is in the archive"))
        findings.add(kind, Place(file, entry=member.name), message)
    return [ShardSample(image, labels[key]) for key, image in images.items()
            if key in labels and not _is_part(key, whole)]


def _is_part(key: str, whole: Collection[str]) -> bool:
    """Whether it is a further part of a sample: 0001.mask.png and 0001.text.json belong to 0001."""
    path = PurePosixPath(key)
    return "." in path.name and path.with_name(path.name.partition(".")[0]).as_posix() in whole


def read_sample(file: Path, sample: ShardSample, builder: AnnotationBuilder, findings: Findings) -> None:
    """Add an image, numbered in order, and its objects without those at fault, which are reported.

    The id of an object is its position in the list. Raises EntryError for a sample that cannot be used.
    """
    check_image_size(sample.image.size)
    content = _read_labels(file, sample.labels)
    given = [content[key] for key in ("annotations", "objects") if content.get(key) is not None]
    objects = next((found for found in given if found != []), given[0] if given else None)
    if not isinstance(objects, list):
        got = "nothing" if objects is None else quoted(objects)
        raise EntryError(Fault.ENTRY, f"annotations: expected a list of objects, got {got}")
    index = builder.num_images
    builder.start(_read_image(file, sample.image, content, index), file)
    for number, entry in enumerate(objects):
        place = Place(file, entry=f"{sample.image.name}: object {number}")
        try:
            found = read_object_entry({**check_entry(entry), "id": number}, builder.class_of, index)
        except EntryError as fault:
            findings.add(fault.kind, place, fault.message)
        else:
            report_ignored(entry, place, findings)
            builder.add(found.label, found.box, area=found.area, crowd=found.crowd, identity=number)


def _read_labels(file: Path, labels: Member) -> dict[str, Any]:
    if labels.size > MAX_LABEL_BYTES:
        raise EntryError(Fault.ANNOTATION_FILE, f"more than {MAX_LABEL_BYTES:,} bytes")
    try:
        return check_entry(parse_json(read_member(file, labels.start, labels.size)))
    except (DocumentError, OSError) as error:
        raise EntryError(Fault.ANNOTATION_FILE, str(error)) from error


def _read_image(file: Path, image: Member, content: Mapping[str, Any], identity: int) -> ImageRecord:
    """The image with the size that its JSON gives, or else its own."""
    sides = {side: content[side] for side in ("width", "height") if side in content}
    if sides:
        return read_image_entry({"id": identity, "file_name": image.name, **sides})
    try:
        return measured(identity, image.name, read_member(file, image.start, image.size))
    except OSError as error:
        raise EntryError(Fault.PICTURE_UNREADABLE, str(error)) from error
