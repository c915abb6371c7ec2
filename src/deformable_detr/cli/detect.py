"""`ddetr detect`: images in, images and JSON out."""

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from deformable_detr.cli.app import (
    JsonFlag,
    Share,
    app,
    check_weights_exist,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.progress import show_progress
from deformable_detr.text import printable

if TYPE_CHECKING:
    import PIL.Image

    from deformable_detr.detect.detector import Detector

JPEG_MAX_SIDE = 65_535


@app.command
def detect(sources: list[str], /, *, weights: str = "demo", threshold: Share = 0.5, out: Path | None = None,
           as_json: JsonFlag = False, device: str = "auto") -> int:
    """Find objects in images.

    Parameters
    ----------
    sources
        Images, folders of images, or globs.
    weights
        "demo" for the packaged ones, a file, or "hf:owner/name".
    threshold
        The least score of what is shown, from 0 to 1.
    out
        The folder for images with their detections drawn in; by default "detections", with --json none.
        Images of an earlier call are replaced there, those given as sources never.
    as_json
        Print a line of JSON for each image, and nothing else.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps", ...
    """
    if out is None and not as_json:
        out = Path("detections")
    check_weights_exist(weights)

    from deformable_detr.detect.detector import Detector

    with wrong_call_for(ValueError):
        detector = Detector(weights, device)
    if out is not None:
        with wrong_call_for(OSError):
            out.mkdir(parents=True, exist_ok=True)
    inputs = list(_find_inputs(sources))
    outputs = _OutputPaths(out, [path for path, _ in inputs]) if out else None
    failed = False
    for path, problem in show_progress(inputs, len(inputs), "detecting"):
        if problem is None:
            problem = _detect_file(path, detector, threshold, outputs, as_json)
        if problem is not None:
            failed = True
            report_error(problem)
            if as_json:
                print_line(json.dumps({"file": str(path), "error": problem}))
    return 1 if failed else 0


def _find_inputs(sources: Sequence[str]) -> Iterator[tuple[Path, str | None]]:
    """Each image once, in the order given; with a problem where a source stands for none."""
    from deformable_detr.images import ImageError, find_images

    seen = set()
    for source in sources:
        try:
            found = find_images(source)
        except (ImageError, OSError) as error:
            yield Path(source), str(error)
            continue
        for path in found:
            if path.absolute() not in seen:
                seen.add(path.absolute())
                yield path, None


def _detect_file(path: Path, detector: "Detector", threshold: float, outputs: "_OutputPaths | None",
                 as_json: bool) -> str | None:
    """Detect, draw and print for one file; what went wrong, or None."""
    from deformable_detr.images import ImageError, read_image

    try:
        image = read_image(path)
        detections = detector(image, threshold)
        drawn = outputs.claim(path, detections.image_size) if outputs else None
        if drawn:
            write_image(detections.draw(image), drawn)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot write its detections ({error})"
    if as_json:
        print_line(json.dumps({"file": str(path), **detections.to_dict(detector.info.category_ids)}))
    else:
        found = ", ".join(f"{number} {name}" for name, number in Counter(detections.names).most_common())
        print_line(printable(f"{path}: {found or 'nothing found'} -> {drawn}"))
    return None


def write_image(image: "PIL.Image.Image", path: Path) -> None:
    """Write it in the format of the path's suffix; what lay there stays whole until it is done."""
    from deformable_detr.files import write_whole

    encoded = io.BytesIO()
    image.save(encoded, "PNG" if path.suffix == ".png" else "JPEG", quality=95)
    write_whole(path, encoded.getvalue())


class _OutputPaths:
    """A path in the output folder for each source: none is a source itself, and no two are the same."""

    def __init__(self, folder: Path, sources: Sequence[Path]) -> None:
        self.folder = folder
        self.sources = {_identity(path) for path in sources} - {None}
        self.claimed: set[str] = set()

    def claim(self, source: Path, image_size: tuple[int, int]) -> Path:
        """JPEG, but PNG for a PNG and for what JPEG cannot hold; numbered where the name is taken."""
        suffix = ".png" if source.suffix.lower() == ".png" or max(image_size) > JPEG_MAX_SIDE else ".jpg"
        for number in count(1):
            name = source.stem + (f"-{number}" if number > 1 else "") + suffix
            path = self.folder / name
            # Some file systems hold A.jpg and a.jpg for one name.
            if name.casefold() not in self.claimed and _identity(path) not in self.sources:
                self.claimed.add(name.casefold())
                return path
        raise AssertionError("numbers do not end")


def _identity(path: Path) -> tuple[int, int] | None:
    """The same for two names of one file, None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
