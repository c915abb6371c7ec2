"""What a folder without a data set holds instead, and how to get a data set from it."""

from itertools import islice
from pathlib import Path

from deformable_detr.images import SUFFIXES

HEAD = 2**16        # characters of a file that show what it is
NUM_TRIED = 20      # files of a folder

# Patterns of files, what the first of them contain, what that is, and what to do.
KINDS = (
    (("*.xml", "*/*.xml"), ("<annotations>",), "annotations of CVAT for images",
     'export from CVAT as "COCO 1.0" or "Ultralytics YOLO Detection", with images'),
    (("*.json", "*/*.json"), ('"shapes"', '"version"'), "annotations of LabelMe",
     "convert them with labelme's own labelme2voc.py to VOC, or with labelme2coco"),
    (("*.json", "*/*.json"), ('"from_name"', '"result"'), "Label Studio's own JSON",
     'export from Label Studio as "COCO with Images" or "YOLO with Images"'),
    (("_annotations.csv", "*/_annotations.csv"), (), "a CSV export of Roboflow",
     'download from Roboflow as "COCO" or "YOLOv8"'),
    (("metadata.jsonl", "metadata.csv", "*/metadata.jsonl", "*/metadata.csv"), (), "an image folder of Hugging Face",
     'load it with load_dataset("imagefolder", data_dir=...), and save each split with to_parquet("train.parquet")'),
    (("*.csv", "*/*.csv"), ("ImageID", "LabelName", "XMin"), "annotations of Open Images",
     "download the part you need with FiftyOne, and export it as COCODetectionDataset"),
)


def describe(folder: Path) -> str | None:
    """What a folder holds, if it is known, with advice."""
    for patterns, marks, name, advice in KINDS:
        for pattern in patterns:
            if any(_contains(file, marks) for file in islice(folder.glob(pattern), NUM_TRIED)):
                return f"{name}, which are not read: {advice}"
    entries = (entry for pattern in ("*", "*/*", "*/*/*") for entry in folder.glob(pattern))
    if any(entry.suffix.lower() in SUFFIXES for entry in entries):
        return "images without annotations: label them, and export them in one of these formats"
    return None if any(folder.iterdir()) else "an empty folder"


def _contains(file: Path, marks: tuple[str, ...]) -> bool:
    """Whether the file, which no link leads to, begins with something that holds all marks."""
    if file.is_symlink() or not file.is_file():
        return False
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            head = opened.read(HEAD)
    except OSError:
        return False
    return all(mark in head for mark in marks)
