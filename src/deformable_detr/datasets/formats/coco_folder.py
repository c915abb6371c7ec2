"""Where COCO annotation files and their images are: COCO's own layout, and those of other tools and services."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from deformable_detr.datasets.annotations import Annotations, ImageFolder
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.coco import read_coco
from deformable_detr.datasets.formats.source import DataSource
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import Fence, FileNames, present
from deformable_detr.datasets.splits import NO_SPLIT, SPLIT_NAMES, UNNAMED_SPLIT, split_folders, splits_in

BESIDE = "_annotations.coco.json"    # Roboflow's, among the images
# Of a data set without splits: Roboflow, CVAT, FiftyOne, Label Studio.
UNSPLIT = (BESIDE, "annotations/instances_default.json", "annotations.json", "annotations/annotations.json",
           "labels.json", "result.json")
NUM_TRIED = 3    # images by which their folder is found


@dataclass(frozen=True)
class CocoFolder(DataSource[Path]):
    """A folder with one COCO file per split."""

    format = "COCO"
    layout = "annotations/instances_train2017.json, train.json, annotations/train.json or train/" + BESIDE
    reports_unlisted = False

    @classmethod
    def find(cls, folder: Path, findings: Findings) -> "CocoFolder | None":
        """The COCO files of a folder; of several for a split the first, in the order of `layout`."""
        files: dict[str, Path] = {}
        candidates = list(_candidates(folder, findings))
        for split, file in candidates:
            if files.setdefault(split, file) != file:
                findings.add(Fault.OTHER_ANNOTATIONS, Place(file), f"for {split} {files[split]} is read")
        named = {file for _, file in candidates}
        for file in sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")]):
            is_coco = file.stem.startswith("instances_")
            if is_coco and not files:
                stop(Fault.SPLIT_UNKNOWN, Place(file), "expected the name of a split, as in instances_train.json")
            if file not in named and files and (is_coco or splits_in(file.stem)):
                findings.add(Fault.OTHER_ANNOTATIONS, Place(file), NO_SPLIT)
        return cls(folder, files) if files else None

    def read(self, split: str, findings: Findings) -> Annotations:
        file = self.places[split]
        try:
            Fence(self.folder, file.parent).check(file)
        except EntryError as fault:
            stop(fault.kind, Place(file), fault.message)
        annotations = read_coco(file, findings)
        images = _image_folder(self.folder, file, split, annotations)
        return present(replace(annotations, store=ImageFolder(images)), images, self.folder, findings)


def _candidates(folder: Path, findings: Findings) -> Iterator[tuple[str, Path]]:
    """Split and file."""
    for pattern, stem in (("annotations/*.json", r"instances_(.+)"), ("*.json", r"([a-z]+)"),
                          ("annotations/*.json", r"([a-z]+)")):
        # An exact name comes first, and of two years the later.
        for file in sorted(folder.glob(pattern), key=lambda file: (file.stem.lower().removeprefix("instances_")
                                                                   in SPLIT_NAMES, file), reverse=True):
            match = re.fullmatch(stem, file.stem.lower())
            splits = splits_in(match[1]) if match else ()
            if len(splits) == 1:
                yield next(iter(splits)), file
    beside = {file.parent.name: file for file in folder.glob(f"*/{BESIDE}")}
    yield from ((split, beside[name]) for split, name in split_folders(beside, findings).items())
    yield from ((UNNAMED_SPLIT, folder / name) for name in UNSPLIT if (folder / name).is_file())


def _image_folder(folder: Path, file: Path, split: str, annotations: Annotations) -> Path:
    """The folder that holds the first images; where none does, the likeliest."""
    if file.name == BESIDE:
        return file.parent
    own = PurePath(file.stem.removeprefix("instances_"))    # train2017
    places = [folder / own, folder / "images" / own, folder / "images" / split, folder / "images", folder / split,
              folder / "data"]
    likely = [place for place in places if place.is_dir()]
    names = [image.file_name for image in annotations.images[:NUM_TRIED]]
    for place in (*likely, file.parent, folder):
        if any(_is_file(place / name) or FileNames(place).find(name) for name in names):
            return place
    if not likely:
        wanted = folder / (own if file.stem.startswith("instances_") else "images")
        got = "a file" if wanted.exists() else "nothing"
        stop(Fault.PICTURE_MISSING, Place(file), f"expected its images in the folder {wanted}, got {got}")
    return likely[0]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):    # a name too long
        return False
