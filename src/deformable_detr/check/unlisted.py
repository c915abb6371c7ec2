"""Images next to those of a data set that none of its annotation files lists."""

from collections.abc import Mapping
from pathlib import Path

from deformable_detr.datasets.annotations import Annotations, ImageFolder
from deformable_detr.datasets.findings import Findings, Place
from deformable_detr.datasets.kinds import Fault
from deformable_detr.images import SUFFIXES


def check_unlisted(splits: Mapping[str, Annotations], findings: Findings) -> None:
    """Report the images in the folders of listed ones that no split lists; links and hidden files do not count."""
    listed: set[str] = set()
    folders: set[Path] = set()
    for annotations in splits.values():
        if isinstance(annotations.store, ImageFolder):
            for path in annotations.store.sources(annotations.images):
                listed.add(_spelt(path))
                folders.add(path.parent)
    unlisted = [path for folder in sorted(folders) for path in sorted(folder.iterdir())
                if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and _spelt(path) not in listed
                and path.is_file() and not path.is_symlink()]
    findings.add_all(Fault.PICTURE_UNLISTED, len(unlisted), (
        (Place(path), "no entry without fault lists it") for path in unlisted))


def _spelt(path: Path) -> str:
    """As file systems compare it for which A.jpg and a.jpg are one name."""
    return str(path).casefold()
