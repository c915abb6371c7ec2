"""Where COCO annotation files and their images lie: COCO's own layout, and those of other tools and services."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from deformable_detr.datasets.annotations import Annotations, ImageFolder
from deformable_detr.datasets.findings import Findings, Place, stop
from deformable_detr.datasets.formats.coco import read_coco
from deformable_detr.datasets.formats.source import UNNAMED_SPLIT
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.layout import SPLIT_NAMES, present

BESIDE = "_annotations.coco.json"    # Roboflow's, among the images
# Of a data set that is not split: Roboflow, CVAT, FiftyOne, Label Studio.
UNSPLIT = (BESIDE, "annotations/instances_default.json", "annotations.json", "annotations/annotations.json",
           "labels.json", "result.json")
EXPECTED = "annotations/instances_train2017.json, train.json, annotations/train.json or train/" + BESIDE
NUM_TRIED = 3    # images that tell which folder they are in


@dataclass(frozen=True)
class CocoFolder:
    """A folder with a COCO file a split."""

    folder: Path
    files: dict[str, Path]    # by split

    format = "COCO"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have a file."""
        return tuple(self.files)

    def read(self, split: str, findings: Findings) -> Annotations:
        """The split without entries at fault and absent images, which are reported. Raises DataError."""
        file = self.files[split]
        annotations = read_coco(file, findings)
        images = _image_folder(self.folder, file, split, annotations)
        return present(replace(annotations, store=ImageFolder(images)), images, self.folder, findings)


def find_coco(folder: Path, findings: Findings) -> CocoFolder | None:
    """The COCO files of a folder; of several for a split the first, in the order of EXPECTED."""
    files: dict[str, Path] = {}
    for split, file in _candidates(folder):
        if files.setdefault(split, file) != file:
            findings.add(Kind.OTHER_ANNOTATIONS, Place(file), f"for {split} {files[split]} is read")
    return CocoFolder(folder, files) if files else None


def _candidates(folder: Path) -> Iterator[tuple[str, Path]]:
    """Split and file."""
    for pattern, stem in (("annotations/*.json", r"instances_([a-z]+)(20\d\d)?"), ("*.json", r"([a-z]+)"),
                          ("annotations/*.json", r"([a-z]+)")):
        for file in sorted(folder.glob(pattern), reverse=True):     # of two years the later
            match = re.fullmatch(stem, file.stem.lower())
            if match and match[1] in SPLIT_NAMES:
                yield SPLIT_NAMES[match[1]], file
    for file in sorted(folder.glob(f"*/{BESIDE}")):
        if file.parent.name.lower() in SPLIT_NAMES:
            yield SPLIT_NAMES[file.parent.name.lower()], file
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
        if any(_is_file(place / name) for name in names):
            return place
    if not likely:
        wanted = folder / (own if file.stem.startswith("instances_") else "images")
        got = "a file" if wanted.exists() else "nothing"
        stop(Kind.PICTURE_MISSING, Place(file), f"expected its images in the folder {wanted}, got {got}")
    return likely[0]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):    # a name too long
        return False
