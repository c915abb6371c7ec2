"""The formats of data sets, told apart by looking at the folder; each turns files into `Annotations`."""

from pathlib import Path

from deformable_detr.datasets.findings import DataError, Findings, Place
from deformable_detr.datasets.formats import coco_folder, parquet, voc_folder, webdataset, yolo_settings
from deformable_detr.datasets.formats.coco_folder import find_coco
from deformable_detr.datasets.formats.parquet import find_parquet
from deformable_detr.datasets.formats.source import DataSource
from deformable_detr.datasets.formats.voc_folder import find_voc
from deformable_detr.datasets.formats.webdataset import find_shards
from deformable_detr.datasets.formats.yolo_folder import find_yolo
from deformable_detr.datasets.kinds import Kind
from deformable_detr.text import printable

# The first counts.
FINDERS = {"COCO": find_coco, "YOLO": find_yolo, "VOC": find_voc, "parquet": find_parquet, "WebDataset": find_shards}
EXPECTED = {"COCO": coco_folder.EXPECTED, "YOLO": yolo_settings.EXPECTED, "VOC": voc_folder.EXPECTED,
            "parquet": parquet.EXPECTED, "WebDataset": webdataset.EXPECTED}
NUM_SHOWN = 8    # names of what is in a folder without a data set


def find_source(folder: Path, findings: Findings) -> DataSource:
    """The data set in a folder. Raises DataError where there is none."""
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: expected the folder of a data set, got {got}")
    found: DataSource | None = None
    for name, find in FINDERS.items():
        if found is None:
            found = find(folder, findings)
        elif _is_also(name, folder):
            findings.add(Kind.OTHER_ANNOTATIONS, Place(folder), f"{found.format} is read, {name} is there too")
    if found is None:
        known = "; ".join(f"{name}: {layout}" for name, layout in EXPECTED.items())
        names = sorted(path.name for path in folder.iterdir())
        got = ", ".join(map(printable, names[:NUM_SHOWN])) + (", ..." if len(names) > NUM_SHOWN else "")
        raise DataError(f"{folder}: no data set found. Expected {known}. Got {got or 'an empty folder'}")
    return found


def _is_also(name: str, folder: Path) -> bool:
    try:
        return FINDERS[name](folder, Findings()) is not None
    except DataError:
        return False
