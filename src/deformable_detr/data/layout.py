"""Where a data set's annotation file and pictures lie on disk."""

import reprlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePath

from deformable_detr.data.annotations import DataError, Picture

NUM_NAMED = 3    # absent pictures named in the message


def find_split(folder: Path, split: str) -> tuple[Path, Path]:
    """The annotation file and the picture folder of a split such as "train" or "val".

    Known are COCO's own layout and `train.json` (or `annotations/train.json`) beside `images/`.
    Raises DataError when there is none.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: expected the folder of a data set, got {got}")
    layouts = [(folder / "annotations" / f"instances_{split}2017.json", folder / f"{split}2017"),
               (folder / f"{split}.json", folder / "images"),
               (folder / "annotations" / f"{split}.json", folder / "images")]
    for annotation_file, picture_folder in layouts:
        if annotation_file.is_file():
            if not picture_folder.is_dir():
                raise DataError(f"{annotation_file}: expected its pictures in the folder {picture_folder}, "
                                f"got {'a file' if picture_folder.exists() else 'nothing'}")
            return annotation_file, picture_folder
    expected = ", ".join(str(file.relative_to(folder)) for file, _ in layouts)
    raise DataError(f"{folder}: no annotation file for {split!r}: expected one of {expected}")


def picture_paths(annotation_file: Path, folder: Path, pictures: Sequence[Picture]) -> list[Path]:
    """The file of every picture.

    Raises DataError for a name that leads out of the folder, by itself or through a link, and for
    pictures that are not there: their number and the first of them.
    """
    paths = [folder / picture.file_name for picture in pictures]
    resolved = cache(Path.resolve)      # the folders are few, and each costs several system calls
    root = folder.resolve()
    absent = []
    for picture, path in zip(pictures, paths, strict=True):
        name = PurePath(picture.file_name)
        try:
            real = path.resolve() if path.is_symlink() else resolved(path.parent) / path.name
            there = real.is_file()
        except (OSError, RuntimeError):     # a name too long, links that lead in a circle
            real, there = root, False
        if name.is_absolute() or ".." in name.parts or not real.is_relative_to(root):
            raise DataError(f"{annotation_file}: picture {picture.id}: file_name: expected a file inside "
                            f"{folder}, got {reprlib.repr(picture.file_name)}")
        if not there:
            absent.append(picture)
    if absent:
        named = ", ".join(f"{picture.file_name!r} (picture {picture.id})" for picture in absent[:NUM_NAMED])
        more = ", ..." if len(absent) > NUM_NAMED else ""
        raise DataError(f"{annotation_file}: {len(absent)} of {len(pictures)} listed pictures are not in "
                        f"{folder}: {named}{more}")
    return paths
