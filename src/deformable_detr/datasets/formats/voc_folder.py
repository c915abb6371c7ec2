"""Where Pascal VOC's XML files and their images lie: in folders of their own, or side by side."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from deformable_detr.datasets.annotations import Annotations, ImageFolder
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.rows import Rows
from deformable_detr.datasets.formats.source import CLASSES, UNNAMED_SPLIT, checked_names
from deformable_detr.datasets.formats.voc import Sheet, read_sheet
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.layout import SPLIT_NAMES, check_name, list_files, read_list
from deformable_detr.images import SUFFIXES, ImageError, open_image, upright_size
from deformable_detr.progress import show_progress
from deformable_detr.text import quoted

PAIRS = (("Annotations", "JPEGImages"), ("Annotations", "images"), ("annotations", "images"), (".", "."))
LISTS = "ImageSets/Main"
EXPECTED = "Annotations/ and JPEGImages/, or an XML file beside each image"


@dataclass(frozen=True)
class VocPlace:
    """Where the XML files and the images of a split are."""

    sheets: Path
    images: Path
    members: Path | None = None     # a list of those that belong to the split


@dataclass(frozen=True)
class VocFolder:
    """A folder with an XML file an image."""

    folder: Path
    places: dict[str, VocPlace]

    format = "VOC"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that were found."""
        return tuple(self.places)

    def read(self, split: str, findings: Findings) -> Annotations:
        """The split without XML files at fault and absent images, which are reported. Raises DataError."""
        sheets, faults = self._sheets[split]
        findings.take(faults)
        class_of = {name: index for index, name in enumerate(self._names)}
        images = _Images(self.places[split].images, self.folder, findings)
        rows = Rows()
        for sheet in sheets:
            try:
                name = images.of(sheet, self.places[split].sheets)
                width, height = sheet.size or _true_size(images.folder / name)
            except (EntryError, ImageError) as error:
                kind = error.kind if isinstance(error, EntryError) else Kind.PICTURE_UNREADABLE
                findings.add(kind, Place(sheet.file), str(error))
                continue
            rows.start(ImageRecord(rows.num_images + 1, name, width, height), sheet.file)
            for found in sheet.objects:
                if found.name in class_of:
                    rows.add(class_of[found.name], found.box, found.line)
                else:
                    findings.add(Kind.CLASS_UNKNOWN, Place(sheet.file, found.line),
                                 f"name: expected one of {quoted(self._names)}, got {quoted(found.name)}")
        if not rows.num_images:
            stop(Kind.NO_IMAGES, Place(self.places[split].sheets), f"no image of the split {split}")
        if self.places[split].members is None:
            images.report_unused()
        ids = tuple(range(1, len(self._names) + 1))
        return rows.annotations(self.folder, self._names, ids, ImageFolder(images.folder))

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """As classes.txt has them, or those of all objects in the order of the alphabet."""
        if (self.folder / CLASSES).is_file():
            listed = (name for _, name in read_list(self.folder / CLASSES, self.folder))
            return tuple(checked_names(self.folder / CLASSES, dict(enumerate(listed))).values())
        return tuple(sorted({found.name for sheets, _ in self._sheets.values()
                             for sheet in sheets for found in sheet.objects}))

    @cached_property
    def _sheets(self) -> dict[str, tuple[list[Sheet], Findings]]:
        """The XML files of every split, since together they name the classes, and what is wrong with them."""
        found = {}
        for split, place in self.places.items():
            faults = Findings()
            files = list(self._files(place, faults))
            sheets = [read_sheet(file, faults) for file in show_progress(files, len(files), f"reading XML of {split}")]
            found[split] = [sheet for sheet in sheets if sheet], faults
        return found

    def _files(self, place: VocPlace, faults: Findings) -> Iterator[Path]:
        """The XML files of a split."""
        names = list_files(place.sheets, {".xml"}, self.folder, faults)
        if place.members is None:
            yield from (place.sheets / name for name in names)
            return
        known = set(names)
        for line, member in read_list(place.members, self.folder):
            if f"{member}.xml" in known:
                yield place.sheets / f"{member}.xml"
            else:
                faults.add(Kind.ANNOTATION_FILE, Place(place.members, line),
                           f"{quoted(member + '.xml')} is not in {place.sheets}")


class _Images:
    """The images of a folder by their names, which need not be what the XML files call them."""

    def __init__(self, folder: Path, data: Path, findings: Findings) -> None:
        self.folder, self.findings = folder, findings
        self.unused = dict.fromkeys(list_files(folder, SUFFIXES, data, findings))
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.unused:
            self.by_stem[_stem(name)].append(name)

    def of(self, sheet: Sheet, sheets: Path) -> str:
        """The image of an XML file: called like it, or as it says. Raises EntryError where there is none."""
        found = self.by_stem.get(_stem(sheet.file.relative_to(sheets).as_posix()), [])
        written = sheet.file_name
        if len(found) != 1 and written:
            check_name(written)
            found = [name for name in self.by_stem.get(_stem(written), []) if name == written] or found
        if not found:
            raise EntryError(Kind.PICTURE_MISSING, f"{quoted(written or sheet.file.stem)} is not in {self.folder}")
        self.unused.pop(found[0], None)
        return found[0]

    def report_unused(self) -> None:
        """Report the images that no XML file belongs to."""
        self.findings.add_all(Kind.PICTURE_UNLISTED, len(self.unused), (
            (Place(self.folder / name), "no XML file belongs to it") for name in self.unused))


def find_voc(folder: Path, _: Findings) -> VocFolder | None:
    """The VOC data set of a folder: split by lists, by folders, or not at all."""
    places = {SPLIT_NAMES[child.name.lower()]: place for child in sorted(folder.iterdir())
              if child.name.lower() in SPLIT_NAMES and (place := _find_place(child))}
    whole = None if places else _find_place(folder)
    if whole:
        # The later name counts: train.txt where there is one beside trainval.txt.
        for name, split in (("trainval", "train"), *SPLIT_NAMES.items()):
            if (folder / LISTS / f"{name}.txt").is_file():
                places[split] = replace(whole, members=folder / LISTS / f"{name}.txt")
        places = places or {UNNAMED_SPLIT: whole}
    return VocFolder(folder, places) if places else None


def _find_place(folder: Path) -> VocPlace | None:
    for sheets, images in PAIRS:
        if next((folder / sheets).glob("*.xml"), None) and (folder / images).is_dir():
            return VocPlace(folder / sheets, folder / images)
    return None


def _true_size(file: Path) -> tuple[int, int]:
    """(width, height)"""
    with open_image(file) as opened:
        height, width = upright_size(opened)
    return width, height


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()
