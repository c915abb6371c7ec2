"""A YOLO data set: which images belong to a split, and to them their labels."""

from dataclasses import dataclass
from pathlib import Path

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.source import CLASSES
from deformable_detr.datasets.formats.yolo import label_beside, label_file, read_yolo
from deformable_detr.datasets.formats.yolo_settings import YoloSettings, find_settings
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.layout import Fence, check_name, list_files, read_list
from deformable_detr.images import SUFFIXES
from deformable_detr.text import quoted


@dataclass(frozen=True)
class YoloFolder:
    """A folder with images and a label file for each."""

    settings: YoloSettings

    format = "YOLO"

    @property
    def folder(self) -> Path:
        """The data set's."""
        return self.settings.folder

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are named."""
        return tuple(self.settings.places)

    def read(self, split: str, findings: Findings) -> Annotations:
        """The split without labels at fault and broken images, which are reported. Raises DataError."""
        settings, images = self.settings, []
        for written in settings.places[split]:
            place = settings.find(written)
            if place is None:
                stop(Kind.NO_IMAGES, Place(settings.file, entry=split), f"expected a folder of images or a list of "
                     f"them inside {self.folder}, got {quoted(written)}")
            images += self._listed(place, findings) if place.is_file() else self._found(place, findings)
        if not images:
            stop(Kind.NO_IMAGES, Place(settings.file, entry=split), f"no image in {settings.places[split][0]}")
        label_of = label_beside if settings.is_darknet else label_file
        return read_yolo(self.folder, settings.file, settings.names, list(dict.fromkeys(images)), label_of, findings)

    def _found(self, place: Path, findings: Findings) -> list[str]:
        """The images of a folder; labels that belong to none are reported."""
        inside = place.relative_to(self.folder)
        images = [(inside / name).as_posix() for name in list_files(place, SUFFIXES, self.folder, findings)]
        labels = (self.folder / label_file((inside / "image").as_posix())).parent
        if labels != place and labels.is_dir():
            known = {self.folder / label_file(name) for name in images}
            # Those that lead outside are reported when their images are read.
            found = list_files(labels, {".txt"}, self.folder, Findings())
            orphans = [labels / name for name in found if labels / name not in known and name != CLASSES]
            findings.add_all(Kind.LABEL_ORPHAN, len(orphans), ((Place(orphan), "no image belongs to it")
                                                               for orphan in orphans))
        return images

    def _listed(self, file: Path, findings: Findings) -> list[str]:
        """The images that a text file names, one a line."""
        fence, images = Fence(self.folder), []
        for number, line in read_list(file, self.folder):
            try:
                path = self.settings.find(line)
                if path is None or not fence.holds(path):
                    raise EntryError(Kind.PICTURE_MISSING, f"{quoted(line)} is not in {self.folder}")
                name = path.relative_to(self.folder).as_posix()
                check_name(name)
                images.append(name)
            except EntryError as fault:
                findings.add(fault.kind, Place(file, number), fault.message)
        return images


def find_yolo(folder: Path, findings: Findings) -> YoloFolder | None:
    """The YOLO data set of a folder. Raises DataError for one whose settings cannot be used."""
    settings = find_settings(folder, findings)
    return YoloFolder(settings) if settings else None
