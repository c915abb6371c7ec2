"""The data of the packaged detector: `python recipes/aquarium.py AQUARIUM OUT [--whole]`.

AQUARIUM holds `train.json`, `val.json` and `images/`, split by photo session. OUT gets `train.json` without two of its
sessions and, as `val.json`, these two: settings are chosen and curves drawn on them, so that the true validation
pictures are looked at once a round and no more. With `--whole` these two are learned too, and the curves say only that.
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
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    whole = json.loads((options.aquarium / "train.json").read_text())
    (options.out / "images").mkdir(parents=True)
    for picture in whole["images"]:
        shutil.copy(options.aquarium / "images" / picture["file_name"], options.out / "images")
    pictures = whole["images"]
    learned = [picture for picture in pictures if options.whole or not is_held_out(picture)]
    write_part(whole, learned, options.out / "train.json")
    write_part(whole, [picture for picture in pictures if is_held_out(picture)], options.out / "val.json")


if __name__ == "__main__":
    main()
