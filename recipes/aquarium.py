"""The data of the packaged detector: `python recipes/aquarium.py AQUARIUM OUT`.

AQUARIUM holds `train.json`, `val.json` and `images/`, split by photo session. OUT gets `train.json` without two of its
sessions and, as `val.json`, these two: settings are chosen and curves drawn on them, so that the true validation
pictures are looked at once a round and no more.
"""

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

HELD_OUT = ((2343, 2369), (8570, 8572))   # first and last number of the photographs of a session


def is_held_out(picture: dict[str, Any]) -> bool:
    number = int(re.findall(r"IMG_(\d+)", picture["file_name"])[0])
    return any(first <= number <= last for first, last in HELD_OUT)


def write_part(whole: dict[str, Any], pictures: list[dict[str, Any]], file: Path) -> None:
    ids = {picture["id"] for picture in pictures}
    annotations = [annotation for annotation in whole["annotations"] if annotation["image_id"] in ids]
    file.write_text(json.dumps({**whole, "images": pictures, "annotations": annotations}))
    print(f"{file}: {len(pictures)} pictures, {len(annotations)} objects")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("aquarium", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    whole = json.loads((options.aquarium / "train.json").read_text())
    (options.out / "images").mkdir(parents=True)
    for picture in whole["images"]:
        shutil.copy(options.aquarium / "images" / picture["file_name"], options.out / "images")
    for name, held_out in (("train", False), ("val", True)):
        part = [picture for picture in whole["images"] if is_held_out(picture) == held_out]
        write_part(whole, part, options.out / f"{name}.json")


if __name__ == "__main__":
    main()
