"""What a folder without a data set holds instead, and how to get a data set from it."""

from itertools import islice
from pathlib import Path

from deformable_detr.datasets.formats.source import begins_with
from deformable_detr.images import SUFFIXES
from deformable_detr.text import quoted

NUM_TRIED = 20      # files of a folder

LABEL_STUDIO = 'export from Label Studio as "COCO with Images" or "YOLO with Images"'
# Patterns of files, what the first of them contain, what that is, and what to do.
KINDS = (
    (("*.json", "*/*.json"), ('"from_name"', '"result"'), "Label Studio's own JSON",
     LABEL_STUDIO),
    (("*.json", "*/*.json"), ('"rectanglelabels"',), "Label Studio's JSON-MIN", LABEL_STUDIO),
    (("_annotations.createml.json", "*/_annotations.createml.json"), (), "Apple's CreateML",
     'download from Roboflow as "COCO" or "YOLOv8"'),
    (("*.json", "*/*.json"), ('"regions"', '"filename"'), "VGG Image Annotator's JSON",
     'export from it as "COCO format", beside the images'),
    (("*/ann/*.json", "*/*/ann/*.json"), ('"objects"',), "a project of Supervisely",
     'export from Supervisely with the app "Export to COCO" or "Export to YOLO"'),
    (("*.tfrecord", "*/*.tfrecord", "*.tfrecord-*"), (), "TFRecords", "export as COCO or YOLO instead"),
    (("label_2/*.txt", "*/label_2/*.txt"), (), "labels of KITTI", "convert them to YOLO's or COCO's"),
    (("_annotations.csv", "*/_annotations.csv"), (), "Roboflow's CSV",
     'download from Roboflow as "COCO" or "YOLOv8"'),
    (("metadata.csv", "*/metadata.csv"), (), "a Hugging Face image folder with CSV, which holds no boxes",
     'load it with load_dataset("imagefolder", data_dir=...), and save each split with to_parquet("train.parquet")'),
    (("*.csv", "*/*.csv"), ("ImageID", "LabelName", "XMin"), "annotations of Open Images",
     "download the part you need with FiftyOne, and export it as COCODetectionDataset"),
)


def describe(folder: Path) -> str | None:
    """What a folder holds, if it is known, with advice."""
    for patterns, marks, name, advice in KINDS:
        for pattern in patterns:
            if any(begins_with(file, marks) for file in islice(folder.glob(pattern), NUM_TRIED)):
                return f"{name}, a format that is not read: {advice}"
    if archives := sorted(file.name for pattern in ("*.zip", "*.7z", "*.rar") for file in folder.glob(pattern)):
        return f"the archive {quoted(archives[0])}: unpack it"
    entries = (entry for pattern in ("*", "*/*", "*/*/*") for entry in folder.glob(pattern))
    if any(entry.suffix.lower() in SUFFIXES for entry in entries):
        return "images without annotations: label them, and export them in one of these formats"
    return None if any(folder.iterdir()) else "an empty folder"
