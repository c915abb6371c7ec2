"""What was found, in the files that other tools take."""

from typing import Literal

Format = Literal["json", "csv", "coco", "yolo", "voc", "labels"]

# The file or folder of each, within the folder for results.
PLACES: dict[Format, str] = {
    "json": "detections.jsonl", "csv": "detections.csv", "coco": "coco", "yolo": "yolo", "voc": "voc",
    "labels": "labels"}
CROPS = "crops"
