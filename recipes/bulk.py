"""Detections in a million images, on this machine or a cluster: `python recipes/bulk.py IMAGES OUT [--weights W] ...`.

IMAGES is a folder, whose images at any depth are taken, or a parquet file or folder with a column of names, each of
which occurs once (`--id`), and one of images (`--image`). OUT gets `detections/*.parquet`, a row for each image:
`file`, `width`, `height`, `detections` (a list of `label`, `name`, `score`, `box`), and `error` where there are none.
Called again it goes on where it stopped, and does images that are new.

Scheduling, failing workers and what is done already are Ray Data's: `pip install 'ray[data]'`. With `--address auto` it
runs on the cluster that it is started on; then IMAGES, OUT and the weights are where all machines see them.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import ray
import ray.data
from ray.data.checkpoint import CheckpointConfig

from deformable_detr import Detections, Detector
from deformable_detr.images import ImageError, find_images

BOX = pa.list_(pa.float32(), 4)
DETECTION = pa.struct([("label", pa.int32()), ("name", pa.string()), ("score", pa.float32()), ("box", BOX)])
ROW = pa.schema([("file", pa.string()), ("width", pa.int32()), ("height", pa.int32()),
                 ("detections", pa.list_(DETECTION)), ("error", pa.string())])
SIDE_JOBS = 2       # processors that reading and writing get on one machine, beside the workers


class Detect:
    """A worker: one detector, which stays; rows with a name and an image in, rows with what is found out."""

    def __init__(self, weights: str, device: str, threshold: float | None) -> None:
        self.detector = Detector(weights, device)
        self.threshold = threshold

    def __call__(self, rows: pa.Table) -> pa.Table:
        names = rows["file"].to_pylist()
        images = [image["bytes"] if isinstance(image, dict) else image for image in rows["image"].to_pylist()]
        found = self.detector.stream(images, self.threshold)
        return pa.Table.from_pylist([row_of(name, each) for name, each in zip(names, found, strict=True)], schema=ROW)


def row_of(name: str, found: Detections | Exception) -> dict[str, Any]:
    if not isinstance(found, Detections):
        return {"file": name, "error": str(found)}
    return {"file": name, **found.to_dict()}


def list_images(folder: Path, out: Path) -> Path:
    """A parquet with the images of a folder, by their paths: what Ray reads, it can leave out when it goes on."""
    found = find_images(folder / "**")
    if found.left_out:
        print(f"{folder}: left out {found.left_out_summary()}", file=sys.stderr)
    names = [path.relative_to(folder).as_posix() for path in found]
    pq.write_table(pa.table({"file": names, "image": [str(path.absolute()) for path in found]}), out / "images.parquet")
    return out / "images.parquet"


def source(options: argparse.Namespace) -> ray.data.Dataset:
    """Rows of `file` and `image`, which is a path or the bytes of a file."""
    if options.images.suffix != ".parquet" and not any(options.images.glob("*.parquet")):
        return ray.data.read_parquet(str(list_images(options.images, options.out)))
    columns = pyarrow.dataset.dataset(options.images, format="parquet").schema.names
    taken = {options.id: "file", options.image: "image"}
    missing = taken.keys() - set(columns)
    if missing:
        raise ValueError(f"{options.images}: expected the columns {', '.join(taken)}, got {', '.join(columns)}")
    rows = ray.data.read_parquet(str(options.images), columns=list(taken))
    return rows if list(taken) == ["file", "image"] else rows.rename_columns(taken)


def check_settings(options: argparse.Namespace) -> None:
    """OUT is for one detector: refuse to add the detections of another."""
    settings = {"images": str(options.images.resolve()), "weights": options.weights, "threshold": options.threshold}
    file = options.out / "settings.json"
    if file.exists() and (before := json.loads(file.read_text())) != settings:
        raise ValueError(f"{options.out}: expected a new folder, or one of these settings, got that of {before}")
    options.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings))


def run(options: argparse.Namespace) -> int:
    """The number of images that failed."""
    check_settings(options)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")       # which Ray would send to its makers
    on_cluster = options.address is not None
    ray.init(address=options.address or "local", include_dashboard=None if on_cluster else False,
             num_cpus=None if on_cluster else options.workers * options.cpus + SIDE_JOBS)
    # Ray writes down which images are in a file of OUT before and after it writes that file, and removes half ones.
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        "file", str((options.out / "done").resolve()), delete_checkpoint_on_success=False)
    start = time.monotonic()
    rows = source(options).repartition(target_num_rows_per_block=options.rows)
    found = rows.map_batches(
        Detect, batch_size=options.rows, batch_format="pyarrow", num_cpus=options.cpus, num_gpus=options.gpus,
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        fn_constructor_args=(options.weights, options.device, options.threshold))
    found.write_parquet(str((options.out / "detections").resolve()))
    done = pyarrow.dataset.dataset(options.out / "detections", format="parquet")
    failed = done.count_rows(filter=pyarrow.dataset.field("error").is_valid())
    print(f"{options.out / 'detections'}: {done.count_rows()} images, {failed} of them failed; this call took "
          f"{time.monotonic() - start:.0f} s")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="demo", help="as of ddetr detect")
    parser.add_argument("--threshold", type=float, help="the lowest score; by default the one kept with the weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1, help="detectors that run at a time")
    parser.add_argument("--cpus", type=float, default=1, help="processors for each worker")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs for each worker")
    parser.add_argument("--rows", type=int, default=256, help="images in a file: what is done anew after a stop")
    parser.add_argument("--address", help="of a Ray cluster; without it, one on this machine alone")
    parser.add_argument("--id", default="file", help="column of a parquet: a name for each image")
    parser.add_argument("--image", default="image", help="column of a parquet: the bytes of an image file, or its path")
    options = parser.parse_args()
    try:
        return 1 if run(options) else 0
    except (ImageError, ValueError) as error:
        print(f"bulk.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
