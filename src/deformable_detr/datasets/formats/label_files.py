"""What formats with a label file for each image share: where the files are, and which image belongs to which."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import ClassVar

from deformable_detr.datasets.annotations import Annotations, ImageFolder
from deformable_detr.datasets.building import AnnotationBuilder, measured
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.source import (
    CLASSES_FILE,
    ONLY_FOLDERS,
    DataSource,
    check_class_names,
    folders_in,
)
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import check_name, list_files, read_list, report_linked, spelling
from deformable_detr.datasets.splits import NO_SPLIT, SPLIT_NAMES, UNNAMED_SPLIT, named_splits, split_folders, splits_in
from deformable_detr.images import SUFFIXES
from deformable_detr.text import quoted

LISTS = "ImageSets/Main"
QUOTES = "\"'"
NUM_TRIED = 20    # files by which a format is recognised


@dataclass(frozen=True)
class LabelledObject:
    """One object of a file."""

    name: str
    box: tuple[float, float, float, float]      # x, y, width, height in pixels
    line: int | None = None


@dataclass(frozen=True)
class LabelFile:
    """The content of one label file."""

    file: Path
    file_name: str | None                       # of the image
    size: tuple[int, int] | None                # (width, height), where the file gives it
    objects: tuple[LabelledObject, ...]


@dataclass(frozen=True)
class LabelPlace:
    """Where the label files and the images of a split are."""

    labels: Path
    images: Path
    members: Path | None = None     # a list of those that belong to the split
    others: Path | None = None      # a list of those among them that do not


@dataclass(frozen=True)
class LabelFolder(DataSource[LabelPlace]):
    """A folder with a label file for each image."""

    suffix: ClassVar[str]                           # of label files
    pairs: ClassVar[tuple[tuple[str, str], ...]]    # folders of labels and of images

    @staticmethod
    @abstractmethod
    def is_label_file(file: Path) -> bool:
        """Whether a file with the suffix is one of this format."""

    @staticmethod
    @abstractmethod
    def read_file(file: Path, findings: Findings) -> LabelFile | None:
        """Read a file without what is at fault, which is reported; None where nothing can be read."""

    @classmethod
    def find(cls, folder: Path, findings: Findings) -> "LabelFolder | None":
        """The data set of a folder: split by lists, by folders, or not at all."""
        folders = folders_in(folder)
        whole = cls._find_place(folder)
        if not any(splits_in(child.name) and cls._find_place(child) for child in folders):
            places = _listed_places(folder / LISTS, whole, findings) or {UNNAMED_SPLIT: whole} if whole else {}
            return cls(folder, places) if places else None
        found = {child.name: place for child in folders if (place := cls._find_place(child))}
        split_of = split_folders({name: folder / name for name in found}, findings)
        if whole:
            findings.add(Fault.OTHER_ANNOTATIONS, Place(whole.labels), ONLY_FOLDERS)
        return cls(folder, {split: found[name] for split, name in split_of.items()})

    @classmethod
    def _find_place(cls, folder: Path) -> LabelPlace | None:
        for labels, images in cls.pairs:
            files = (folder / labels).glob(f"{'' if labels == '.' else '**/'}*{cls.suffix}")
            if (folder / images).is_dir() and any(map(cls.is_label_file, islice(files, NUM_TRIED))):
                return LabelPlace(folder / labels, folder / images)
        return None

    def read(self, split: str, findings: Findings) -> Annotations:
        place, (files, faults) = self.places[split], self._files[split]
        report_linked(self.folder, [place.labels, place.images], findings)
        findings.merge(faults)
        builder = AnnotationBuilder(self._names)
        class_of = {name: index for index, name in enumerate(self._names.values())}
        images = _Images(place.images, self.folder, findings)
        for read in files:
            try:
                builder.start(images.record(read, place.labels, builder.num_images + 1), read.file)
            except EntryError as fault:
                findings.add(fault.kind, Place(read.file), fault.message)
                continue
            for found in read.objects:
                if found.name in class_of:
                    builder.add(class_of[found.name], found.box, line=found.line)
                else:
                    findings.add(Fault.CLASS_UNKNOWN, Place(read.file, found.line),
                                 f"name: expected one of {quoted(tuple(class_of))}, got {quoted(found.name)}")
        if not builder.num_images:
            stop(Fault.NO_IMAGES, Place(place.labels), f"no image of the split {split}")
        if place.members is None:
            images.report_unused()
        return builder.annotations(self.folder, ImageFolder(images.folder))

    @cached_property
    def _names(self) -> dict[int, str]:
        """Those of classes.txt in its order, or those of all objects, sorted; numbered from 1."""
        if (self.folder / CLASSES_FILE).is_file():
            listed = (name for _, name in read_list(self.folder / CLASSES_FILE, self.folder))
            return check_class_names(self.folder / CLASSES_FILE, dict(enumerate(listed, start=1)))
        found = {found.name for files, _ in self._files.values() for file in files for found in file.objects}
        return dict(enumerate(sorted(found), start=1))

    @cached_property
    def _files(self) -> dict[str, tuple[list[LabelFile], Findings]]:
        """The label files of every split, since the classes are those of all splits; and the faults in them."""
        found = {}
        for split, place in self.places.items():
            faults = Findings()
            paths = list(self._paths(place, faults))
            shown = self.progress(paths, len(paths), f"reading labels of {split}")
            files = [self.read_file(path, faults) for path in shown]
            found[split] = [file for file in files if file], faults
        return found

    def _paths(self, place: LabelPlace, faults: Findings) -> Iterator[Path]:
        """The label files of a split."""
        names = list_files(place.labels, {self.suffix}, self.folder, faults)
        if place.members is None:
            yield from (place.labels / name for name in names)
            return
        known = {_stem(name): name for name in names}
        others = {member for _, member in read_list(place.others, self.folder)} if place.others else ()
        for line, member in read_list(place.members, self.folder):
            stems = (_stem(written + self.suffix) for written in (member, member.strip(QUOTES)))   # some have spaces
            name = next((known[stem] for stem in stems if stem in known), None)
            if member in others:
                continue
            if name:
                yield place.labels / name
            else:
                faults.add(Fault.ANNOTATION_FILE, Place(place.members, line),
                           f"{quoted(member + self.suffix)} is not in {place.labels}")


class _Images:
    """The images of a folder by their names, which need not be those in the label files."""

    def __init__(self, folder: Path, data: Path, findings: Findings) -> None:
        self.folder, self.findings = folder, findings
        self.unused = dict.fromkeys(list_files(folder, SUFFIXES, data, findings))
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.unused:
            self.by_stem[_stem(name)].append(name)

    def record(self, file: LabelFile, labels: Path, identity: int) -> ImageRecord:
        """The image of a label file. Raises EntryError where there is none."""
        name = self._name_of(file, labels)
        if file.size:
            return ImageRecord(identity, name, *file.size)
        try:
            return measured(identity, name, self.folder / name)
        except EntryError as fault:
            raise EntryError(fault.kind, f"{self.folder / name}: {fault.message}") from fault

    def report_unused(self) -> None:
        """Report the images that no label file belongs to."""
        self.findings.add_all(Fault.PICTURE_UNLISTED, len(self.unused), (
            (Place(self.folder / name), "no label file belongs to it") for name in self.unused))

    def _name_of(self, file: LabelFile, labels: Path) -> str:
        """The image that has the name of the label file, or the one that the file names."""
        found = self.by_stem.get(_stem(file.file.relative_to(labels).as_posix()), [])
        written = file.file_name
        if len(found) != 1 and written:
            check_name(written)
            named = [name for name in self.by_stem.get(_stem(written), []) if spelling(name) == spelling(written)]
            found = [name for name in named if name == written] or named or found
        if not found:
            raise EntryError(Fault.PICTURE_MISSING, f"{quoted(written or file.file.stem)} is not in {self.folder}")
        self.unused.pop(found[0], None)
        return found[0]


def _listed_places(lists: Path, whole: LabelPlace, findings: Findings) -> dict[str, LabelPlace]:
    """The splits by their lists; of train and val, what one lacks is the rest of trainval.txt."""
    # Others, such as cat_val.txt, are of a class.
    files = {file.stem: file for file in lists.glob("*.txt") if file.stem.lower() in SPLIT_NAMES}
    files_of = {split: files[name] for split, name in named_splits(files, findings).items()}
    places = {split: replace(whole, members=file) for split, file in files_of.items()}
    both = lists / "trainval.txt"
    for split, other in (("train", "val"), ("val", "train")):
        if split not in places and both.is_file() and (other in files_of or split == "train"):
            places[split] = replace(whole, members=both, others=files_of.get(other))
    for file in sorted(lists.glob("*.txt")):
        is_of_class = file.stem.rpartition("_")[2] in (*SPLIT_NAMES, both.stem) and "_" in file.stem
        if file.stem not in (*files, both.stem, "default") and not is_of_class:
            findings.add(Fault.OTHER_ANNOTATIONS, Place(file), NO_SPLIT)
    return places


def _stem(name: str) -> str:
    return PurePosixPath(spelling(name).replace("\\", "/")).with_suffix("").as_posix()
