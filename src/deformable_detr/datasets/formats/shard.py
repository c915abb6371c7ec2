"""One shard of a WebDataset: a tar archive in which an image and its JSON share a key, as in 0001.jpg, 0001.json."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deformable_detr.datasets.documents import DocumentError, parse_json
from deformable_detr.datasets.findings import EntryError, Findings, Place
from deformable_detr.datasets.formats.coco_entries import Row, read_id, read_image, read_object
from deformable_detr.datasets.formats.tar_members import Member, read_members
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Kind
from deformable_detr.images import SUFFIXES, ImageError, open_image, upright_size
from deformable_detr.text import quoted

MAX_LABEL_BYTES = 4 * 2**20     # of an image's JSON; outlines and all, some kilobytes are usual
MAX_IMAGE_BYTES = 2**29       # the most pixels that are read, uncompressed, and more
LABELS = ".json"


@dataclass(frozen=True, slots=True)
class ShardSample:
    """An image and what is written about it, as members of the shard."""

    image: Member
    labels: Member


def find_samples(file: Path, findings: Findings) -> list[ShardSample]:
    """The images of a shard that come with JSON, in its order. What lacks the other, or comes twice, is reported."""
    images: dict[str, Member] = {}
    labels: dict[str, Member] = {}
    for member in read_members(file, findings):
        path = PurePosixPath(member.name)
        suffix, key = path.suffix.lower(), path.with_suffix("").as_posix()
        if suffix == LABELS or suffix in SUFFIXES:
            first = (labels if suffix == LABELS else images).setdefault(key, member)
            if first is not member:
                findings.add(Kind.ID_TWICE, Place(file, entry=member.name),
                             f"expected {key} once, got it again after {first.name}")
    _report_lonely(file, images, labels, findings)
    return [ShardSample(image, labels[key]) for key, image in images.items() if key in labels]


def _report_lonely(file: Path, images: Mapping[str, Member], labels: Mapping[str, Member],
                   findings: Findings) -> None:
    """Report images without JSON and the reverse; 0001.mask.png and 0001.text.json are further parts of 0001."""
    def lonely(these: Mapping[str, Member], others: Mapping[str, Member]) -> Iterator[tuple[str, Member]]:
        for key, member in these.items():
            path = PurePosixPath(key)
            whole = path.with_name(path.name.partition(".")[0]).as_posix() if "." in path.name else key
            if key not in others and not (whole in images and whole in labels):
                yield key, member

    for key, member in lonely(images, labels):
        findings.add(Kind.PICTURE_UNLISTED, Place(file, entry=member.name), f"expected {key}{LABELS}, got nothing")
    for key, member in lonely(labels, images):
        findings.add(Kind.PICTURE_MISSING, Place(file, entry=member.name), f"no image {key} is in the archive")


@dataclass(frozen=True)
class ShardReader:
    """Reads what shards say about their images."""

    file: Path
    class_of: Mapping[int, int]     # index of the class by its id
    findings: Findings

    def read(self, sample: ShardSample, identity: int) -> tuple[ImageRecord, list[Row]]:
        """The image, under this id, and its objects without those at fault, which are reported.

        Each object has for its own id its position in the list, and for the index of its image the image's id.
        Raises EntryError for a sample that cannot be used.
        """
        if sample.image.size > MAX_IMAGE_BYTES:
            raise EntryError(Kind.PICTURE_UNREADABLE, f"more than {MAX_IMAGE_BYTES:,} bytes")
        content = self._content(sample.labels)
        objects = content.get("annotations", content.get("objects"))
        if not isinstance(objects, list):
            got = "nothing" if objects is None else quoted(objects)
            raise EntryError(Kind.ENTRY, f"annotations: expected a list of objects, got {got}")
        entry = {"id": identity, "file_name": sample.image.name}
        sides = {side: content[side] for side in ("width", "height") if side in content}
        image = read_image({**entry, **(sides or self._true_size(sample.image))})
        return image, list(self._objects(objects, image))

    def _content(self, labels: Member) -> dict[str, Any]:
        if labels.size > MAX_LABEL_BYTES:
            raise EntryError(Kind.ANNOTATION_FILE, f"more than {MAX_LABEL_BYTES:,} bytes")
        try:
            content = parse_json(read_member(self.file, labels.start, labels.size))
        except (DocumentError, OSError) as error:
            raise EntryError(Kind.ANNOTATION_FILE, str(error)) from error
        if not isinstance(content, dict):
            raise EntryError(Kind.ENTRY, f"expected an object with a list of annotations, got {quoted(content)}")
        return content

    def _true_size(self, image: Member) -> dict[str, int]:
        """Of an image whose JSON does not say it."""
        try:
            with open_image(read_member(self.file, image.start, image.size)) as opened:
                height, width = upright_size(opened)
        except (ImageError, OSError) as error:
            raise EntryError(Kind.PICTURE_UNREADABLE, str(error)) from error
        return {"width": width, "height": height}

    def _objects(self, objects: list[Any], image: ImageRecord) -> Iterator[Row]:
        class_ids = list(self.class_of)
        for number, entry in enumerate(objects):
            try:
                if not isinstance(entry, dict):
                    raise EntryError(Kind.ENTRY, f"expected an object, got {quoted(entry)}")
                label = self.class_of.get(read_id(entry, "category_id"))
                yield read_object({**entry, "id": number}, label, image.id, class_ids)
            except EntryError as fault:
                place = Place(self.file, entry=f"{image.file_name}: object {number}")
                self.findings.add(fault.kind, place, fault.message)


def read_member(file: Path, start: int, size: int) -> bytes:
    """A part of a file, which is opened for it: no handle is shared by processes or threads. Raises OSError."""
    with file.open("rb") as stream:
        stream.seek(start)
        content = stream.read(size)
    if len(content) < size:
        raise OSError("the file has become shorter")
    return content
