"""Every image, opened and decoded as a training would: what is wrong with it, and what it looks like."""

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import PIL.Image
from jaxtyping import Bool

from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.findings import EntryError, Findings
from deformable_detr.datasets.kinds import Kind
from deformable_detr.images import UPRIGHT, ImageError, open_image, orientation_of, read_image, upright_size
from deformable_detr.progress import show_progress
from deformable_detr.structures import ImageSize

# What Pillow calls the formats that these endings promise.
FORMATS = {".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO"), ".jpe": ("JPEG", "MPO"), ".jfif": ("JPEG", "MPO"),
           ".mpo": ("MPO", "JPEG"), ".png": ("PNG",), ".webp": ("WEBP",), ".avif": ("AVIF",), ".bmp": ("BMP", "DIB"),
           ".gif": ("GIF",), ".tif": ("TIFF",), ".tiff": ("TIFF",), ".ppm": ("PPM",), ".pgm": ("PPM",),
           ".pbm": ("PPM",), ".pnm": ("PPM",), ".jp2": ("JPEG2000",)}
GRID = 16               # rows and columns of a fingerprint
FLAT = 2.0              # deviation of grey levels below which a fingerprint says nothing
MAX_THREADS = 8


@dataclass(frozen=True)
class Look:
    """What one image is."""

    format: str                             # as Pillow calls it
    stored: ImageSize                       # (height, width) before EXIF turns it
    upright: ImageSize                      # and behind
    orientation: int                        # of EXIF
    digest: bytes                           # of the file
    fingerprint: Bool[np.ndarray, "bits"] | None    # alike for images that look alike; None for a flat one


@dataclass(frozen=True)
class Looks:
    """The images of all splits, one after another; None for those that cannot be read."""

    places: tuple[tuple[str, int], ...]     # split and index
    looks: tuple[Look | None, ...]

    def of(self, wanted: str) -> tuple[Look | None, ...]:
        """Those of one split."""
        return tuple(look for (split, _), look in zip(self.places, self.looks, strict=True) if split == wanted)


def look_at_all(splits: Mapping[str, Annotations], findings: Findings) -> Looks:
    """Look at every image, and report what is wrong with it."""
    places = [(split, index) for split, annotations in splits.items() for index in range(len(annotations.images))]
    looks: list[Look | None] = []
    # Reading an image silences Pillow's warnings, which is no affair of one thread: they stay silent until the end.
    with warnings.catch_warnings(action="ignore"):
        shown = show_progress(_outcomes(splits), len(places), "looking at images")
        for (split, index), outcome in zip(places, shown, strict=True):
            annotations = splits[split]
            if isinstance(outcome, EntryError):
                name = annotations.images[index].file_name
                findings.add(outcome.kind, annotations.place_of_image(index), f"{name}: {outcome.message}")
                looks.append(None)
            else:
                for kind, message in _judged(outcome, annotations, index):
                    findings.add(kind, annotations.place_of_image(index), message)
                looks.append(outcome)
    return Looks(tuple(places), tuple(looks))


def _outcomes(splits: Mapping[str, Annotations]) -> Iterator[Look | EntryError]:
    """A look at every image in turn; some are looked at together."""
    workers = min(MAX_THREADS, os.cpu_count() or 1)
    under_way: deque[Future[Look | EntryError]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for annotations in splits.values():
            for source in annotations.store.sources(annotations.images):
                under_way.append(pool.submit(_outcome, source))
                if len(under_way) > 2 * workers:
                    yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _outcome(source: Path | bytes) -> Look | EntryError:
    try:
        return look_at(source)
    except ImageError as error:
        reason = error.reason_for(source)
        kind = Kind.PICTURE_TRUNCATED if "truncated" in reason.lower() else Kind.PICTURE_UNREADABLE
        return EntryError(kind, reason)


def look_at(source: Path | bytes) -> Look:
    """Open and decode an image. Raises ImageError."""
    with open_image(source) as opened:
        name, (width, height), upright = opened.format or "", opened.size, upright_size(opened)
        orientation = orientation_of(opened)
    pixels = read_image(source)
    if isinstance(source, bytes):
        digest = hashlib.sha256(source).digest()
    else:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    return Look(name, (height, width), upright, orientation, digest, _fingerprint(pixels))


def _fingerprint(pixels: np.ndarray) -> np.ndarray | None:
    """Whether it gets lighter from left to right at each point of a coarse grid."""
    image = PIL.Image.fromarray(pixels).convert("L").resize((GRID + 1, GRID), PIL.Image.Resampling.BOX)
    grey = np.asarray(image).astype(np.int16)
    return None if grey.std() < FLAT else (grey[:, 1:] > grey[:, :-1]).ravel()


def _judged(look: Look, annotations: Annotations, index: int) -> Iterator[tuple[Kind, str]]:
    """What is wrong with an image that can be read."""
    image = annotations.images[index]
    promised = FORMATS.get(PurePath(image.file_name).suffix.lower())
    if promised and look.format not in promised:
        yield Kind.PICTURE_MISLABELLED, f"{image.file_name} is a {look.format}"
    if image.size not in (look.stored, look.upright):
        height, width = look.upright
        yield Kind.PICTURE_SIZE, (f"expected {image.width} x {image.height} pixels, got {width} x {height} in "
                                  f"{image.file_name}")
    elif look.orientation in UPRIGHT:
        meant = ("upright, as most viewers show it" if image.size == look.upright != look.stored else
                 "as it is stored, unlike most viewers show it" if image.size == look.stored != look.upright else
                 "either way, so it is taken upright")
        yield Kind.PICTURE_ROTATED, f"EXIF turns {image.file_name}; by its size the annotations mean it {meant}"
