"""The formats of data sets, recognised by the files in the folder; each is read into `Annotations`."""

from pathlib import Path
from typing import Any

from deformable_detr.datasets.findings import DataError, Findings, Place
from deformable_detr.datasets.formats.coco_folder import CocoFolder
from deformable_detr.datasets.formats.cvat import CvatFolder
from deformable_detr.datasets.formats.image_folder import ImageFolderSource
from deformable_detr.datasets.formats.labelme import LabelMeFolder
from deformable_detr.datasets.formats.parquet import ParquetFolder
from deformable_detr.datasets.formats.source import DataSource
from deformable_detr.datasets.formats.unsupported import describe
from deformable_detr.datasets.formats.voc import VocFolder
from deformable_detr.datasets.formats.webdataset import ShardFolder
from deformable_detr.datasets.formats.yolo import YoloFolder
from deformable_detr.datasets.kinds import Fault
from deformable_detr.text import printable

# Of several in a folder the first is read.
SOURCES = (CocoFolder, YoloFolder, VocFolder, ParquetFolder, ShardFolder, ImageFolderSource, LabelMeFolder, CvatFolder)
NUM_SHOWN = 8    # names of files in a folder without a data set


def find_source(folder: Path, findings: Findings) -> DataSource[Any]:
    """The data set in a folder. Raises DataError where there is none."""
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: expected the folder of a data set, got {got}")
    found: DataSource[Any] | None = None
    for source in SOURCES:
        if found is None:
            found = source.find(folder, findings)
        elif _is_also(source, folder):
            findings.add(Fault.OTHER_ANNOTATIONS, Place(folder),
                         f"{found.format} is read, {source.format} is there too")
    if found is None:
        known = "; ".join(f"{source.format}: {source.layout}" for source in SOURCES)
        names = sorted(path.name for path in folder.iterdir())
        got = ", ".join(map(printable, names[:NUM_SHOWN])) + (", ..." if len(names) > NUM_SHOWN else "")
        raise DataError(f"{folder}: no data set found. Expected {known}. Got {describe(folder) or got}")
    return found


def _is_also(source: type[DataSource[Any]], folder: Path) -> bool:
    try:
        return source.find(folder, Findings()) is not None
    except DataError:
        return False
