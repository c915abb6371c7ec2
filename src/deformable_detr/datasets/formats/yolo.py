"""YOLO data sets: for each image a text file with one object per line, in fractions of the image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from deformable_detr.datasets.annotations import Annotations, ImageFolder
from deformable_detr.datasets.building import AnnotationBuilder, measured
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.source import CLASSES_FILE, DataSource
from deformable_detr.datasets.formats.yolo_lines import YoloLines
from deformable_detr.datasets.formats.yolo_settings import DARKNET, YoloSettings, find_settings
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import Fence, FileNames, check_name, list_files, read_list, report_linked, spelling
from deformable_detr.documents import DocumentError, read_lines
from deformable_detr.images import SUFFIXES
from deformable_detr.progress import Progress
from deformable_detr.text import quoted

LARGEST_FRACTION = 2.0    # a box may extend beyond its image; larger numbers are pixels


@dataclass(frozen=True)
class YoloFolder(DataSource[tuple[str, ...]]):
    """A folder with images and a label file for each; a split's places are written in the settings."""

    settings: YoloSettings = field(kw_only=True)

    format = "YOLO"
    layout = f"data.yaml, or {DARKNET}, or images/ and labels/ beside {CLASSES_FILE}"

    @classmethod
    def find(cls, folder: Path, findings: Findings) -> "YoloFolder | None":
        settings = find_settings(folder, findings)
        return cls(folder, settings.places, settings=settings) if settings else None

    def read(self, split: str, findings: Findings) -> Annotations:
        settings, images = self.settings, []
        for written in settings.places[split]:
            place = settings.found.get(written)
            if place is None:
                stop(Fault.NO_IMAGES, Place(settings.file, entry=split), f"expected a folder of images or a list "
                     f"of them inside {self.folder}, got {quoted(written)}")
            images += self._listed(place, findings) if place.is_file() else self._found(place, findings)
        if not images:
            stop(Fault.NO_IMAGES, Place(settings.file, entry=split), f"no image in {settings.places[split][0]}")
        return read_yolo(settings, list(dict.fromkeys(images)), label_beside if settings.is_darknet else label_file,
                         findings, self.progress)

    def _found(self, place: Path, findings: Findings) -> list[str]:
        """The images of a folder; label files that belong to none are reported."""
        inside = place.relative_to(self.folder)
        images = [(inside / name).as_posix() for name in list_files(place, SUFFIXES, self.folder, findings)]
        labels = (self.folder / label_file((inside / "image").as_posix())).parent
        report_linked(self.folder, [place, labels], findings)
        if labels != place and labels.is_dir():
            known = {spelling(label_file(name)) for name in images}
            # Those that lead outside are reported when their images are read.
            found = list_files(labels, {".txt"}, self.folder, Findings())
            orphans = [labels / name for name in found if name != CLASSES_FILE
                       and spelling((labels / name).relative_to(self.folder).as_posix()) not in known]
            findings.add_all(Fault.LABEL_ORPHAN, len(orphans), (
                (Place(orphan), "no image belongs to it") for orphan in orphans))
        return images

    def _listed(self, file: Path, findings: Findings) -> list[str]:
        """The images that a text file names, one per line."""
        fence, images, lines = Fence(self.folder), [], read_list(file, self.folder)
        paths = self.settings.find([line for _, line in lines])
        for (number, line), path in zip(lines, paths, strict=True):
            try:
                if path is None or not fence.holds(path):
                    if path is not None:
                        fence.check(path)
                    raise EntryError(Fault.PICTURE_MISSING, f"{quoted(line)} is not in {self.folder}")
                name = path.relative_to(self.folder).as_posix()
                check_name(name)
                images.append(name)
            except EntryError as fault:
                findings.add(fault.kind, Place(file, number), fault.message)
        return images


def read_yolo(settings: YoloSettings, images: Sequence[str], label_of: Callable[[str], str], findings: Findings,
              progress: Progress) -> Annotations:
    """The images, by their names under the folder, and the objects of their label files, without those at fault.

    `label_of` gives the label file of an image.
    """
    folder, builder, unlabelled = settings.folder, AnnotationBuilder(settings.names), []
    reader, spelt = YoloLines(builder.class_of, settings.key_points, settings.task), FileNames(folder)
    fence = Fence(folder, *{(folder / label_of(name)).parent for name in images})
    for name in progress(images, len(images), "reading labels"):
        try:
            image = measured(builder.num_images + 1, name, folder / name)
        except EntryError as fault:
            findings.add(fault.kind, Place(folder / name), fault.message)
            continue
        label = folder / label_of(name)
        if not label.exists():
            label = folder / (spelt.find(label_of(name)) or label_of(name))
        builder.start(image, label)
        try:
            if fence.holds(label):
                _read_labels(label, image, reader, builder, findings)
            else:
                fence.check(label)
                unlabelled.append(name)
        except EntryError as fault:
            findings.add(fault.kind, Place(label), fault.message)
    findings.add_all(Fault.LABEL_MISSING, len(unlabelled), (
        (Place(folder / name), f"expected {folder / label_of(name)}, got nothing") for name in unlabelled))
    reader.check_sure(settings.file)
    return builder.annotations(settings.file, ImageFolder(folder))


def label_file(image: str) -> str:
    """The label file of an image: the last `images` of its path becomes `labels`; without one, beside it."""
    path = PurePosixPath(label_beside(image))
    parts = list(path.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return PurePosixPath(*parts).as_posix()


def label_beside(image: str) -> str:
    """The label file beside an image, whatever its folders are called."""
    return PurePosixPath(image).with_suffix(".txt").as_posix()


def _read_labels(file: Path, image: ImageRecord, reader: YoloLines, builder: AnnotationBuilder,
                 findings: Findings) -> None:
    """Add the objects of an image's label file."""
    try:
        lines = read_lines(file)
    except DocumentError as error:
        raise EntryError(Fault.ANNOTATION_FILE, str(error)) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            label, (x, y, width, height) = reader.read(line.split())
        except EntryError as fault:
            findings.add(fault.kind, Place(file, number), fault.message)
            continue
        if max(map(abs, (x, y, width, height))) > LARGEST_FRACTION:
            findings.add(Fault.BOX_PIXELS, Place(file, number),
                         f"expected centre x, centre y, width, height from 0 to 1, got {quoted(line.strip())}")
        else:
            x, width, y, height = x * image.width, width * image.width, y * image.height, height * image.height
        builder.add(label, (x - width / 2, y - height / 2, width, height), line=number)
