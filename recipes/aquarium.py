"""The data of the packaged detector: `python recipes/aquarium.py AQUARIUM OUT [--whole]`.

AQUARIUM holds `train.json`, `val.json` and `images/`, split by photo session. OUT gets `train.json` without two of its
sessions and, as `val.json`, these two: settings are chosen and curves drawn on them, so that the true validation
images are looked at once a round and no more. With `--whole` these two are learned too, and the curves say only that.
"""

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

HELD_OUT = ((2343, 2369), (8570, 8572))   # first and last number of the photographs of a session


def is_held_out(image: dict[str, Any]) -> bool:
    number = int(re.findall(r"IMG_(\d+)", image["file_name"])[0])
    return any(first <= number <= last for first, last in HELD_OUT)


def write_part(whole: dict[str, Any], images: list[dict[str, Any]], file: Path) -> None:
    ids = {image["id"] for image in images}
    annotations = [annotation for annotation in whole["annotations"] if annotation["image_id"] in ids]
    file.write_text(json.dumps({**whole, "images": images, "annotations": annotations}))
    print(f"{file}: {len(images)} images, {len(annotations)} objects")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("aquarium", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    whole = json.loads((options.aquarium / "train.json").read_text())
    (options.out / "images").mkdir(parents=True)
    for image in whole["images"]:
        shutil.copy(options.aquarium / "images" / image["file_name"], options.out / "images")
    images = whole["images"]
    learned = [image for image in images if options.whole or not is_held_out(image)]
    write_part(whole, learned, options.out / "train.json")
    write_part(whole, [image for image in images if is_held_out(image)], options.out / "val.json")


if __name__ == "__main__":
    main()
