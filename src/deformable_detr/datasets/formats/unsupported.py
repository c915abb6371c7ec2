"""What a folder without a data set holds instead, and how to get a data set from it."""

from itertools import islice
from pathlib import Path

from deformable_detr.datasets.formats.source import begins_with
from deformable_detr.images import SUFFIXES

NUM_TRIED = 20      # files of a folder

# Patterns of files, what the first of them contain, what that is, and what to do.
KINDS = (
    (("*.json", "*/*.json"), ('"from_name"', '"result"'), "Label Studio's own JSON",
     'export from Label Studio as "COCO with Images" or "YOLO with Images"'),
    (("_annotations.csv", "*/_annotations.csv"), (), "a CSV export of Roboflow",
     'download from Roboflow as "COCO" or "YOLOv8"'),
    (("metadata.csv", "*/metadata.csv"), (), "an image folder of Hugging Face with CSV, which holds no boxes",
     'load it with load_dataset("imagefolder", data_dir=...), and save each split with to_parquet("train.parquet")'),
    (("*.csv", "*/*.csv"), ("ImageID", "LabelName", "XMin"), "annotations of Open Images",
     "download the part you need with FiftyOne, and export it as COCODetectionDataset"),
)


def describe(folder: Path) -> str | None:
    """What a folder holds, if it is known, with advice."""
    for patterns, marks, name, advice in KINDS:
        for pattern in patterns:
            if any(begins_with(file, marks) for file in islice(folder.glob(pattern), NUM_TRIED)):
                return f"{name}, which are not read: {advice}"
    entries = (entry for pattern in ("*", "*/*", "*/*/*") for entry in folder.glob(pattern))
    if any(entry.suffix.lower() in SUFFIXES for entry in entries):
        return "images without annotations: label them, and export them in one of these formats"
    return None if any(folder.iterdir()) else "an empty folder"
