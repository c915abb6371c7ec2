"""Every image, decoded as in training: what is wrong with it, and a fingerprint of what it shows."""

import hashlib
import os
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
from deformable_detr.datasets.image_list import ImageRecord
from deformable_detr.datasets.kinds import Fault
from deformable_detr.images import (
    UPRIGHT,
    ImageError,
    is_deep,
    is_nearly_black,
    num_frames,
    open_image,
    orientation_of,
    read_image,
    upright_size,
)
from deformable_detr.progress import Progress, no_progress
from deformable_detr.structures import ImageSize

# Pillow's names for the formats that the suffixes promise.
FORMATS_OF_SUFFIX = {
    ".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO"), ".jpe": ("JPEG", "MPO"), ".jfif": ("JPEG", "MPO"),
    ".mpo": ("MPO", "JPEG"), ".png": ("PNG",), ".webp": ("WEBP",), ".avif": ("AVIF",), ".bmp": ("BMP", "DIB"),
    ".gif": ("GIF",), ".tif": ("TIFF",), ".tiff": ("TIFF",), ".ppm": ("PPM",), ".pgm": ("PPM",),
    ".pbm": ("PPM",), ".pnm": ("PPM",), ".jp2": ("JPEG2000",)}
GRID = 16               # rows and columns of a fingerprint
FLAT = 2.0              # standard deviation of grey levels below which a fingerprint is meaningless
MAX_THREADS = 8


@dataclass(frozen=True)
class ScannedImage:
    """The properties of one image file."""

    format: str                             # Pillow's name for it
    stored: ImageSize                       # (height, width) before EXIF is applied
    upright: ImageSize                      # and after
    orientation: int                        # of EXIF
    digest: bytes                           # of the file
    fingerprint: Bool[np.ndarray, "bits"] | None    # alike for images that scanned alike; None for a flat one
    num_frames: int = 1                     # pages or frames
    is_dark: bool = False                   # of more than 8 bits, and nearly black once read


@dataclass(frozen=True)
class ImageScan:
    """The images of all splits, one after another; None for those that cannot be read."""

    places: tuple[tuple[str, int], ...]     # split and index
    images: tuple[ScannedImage | None, ...]

    def of(self, wanted: str) -> tuple[ScannedImage | None, ...]:
        """The images of one split."""
        return tuple(scanned for (split, _), scanned in zip(self.places, self.images, strict=True) if split == wanted)


def scan_images(splits: Mapping[str, Annotations], findings: Findings,
                progress: Progress = no_progress) -> ImageScan:
    """Decode every image, and report what is wrong with it."""
    places = [(split, index) for split, annotations in splits.items() for index in range(len(annotations.images))]
    images: list[ScannedImage | None] = []
    shown = progress(_outcomes(splits), len(places), "decoding images")
    for (split, index), outcome in zip(places, shown, strict=True):
        annotations = splits[split]
        if isinstance(outcome, EntryError):
            name = annotations.images[index].file_name
            findings.add(outcome.kind, annotations.place_of_image(index), f"{name}: {outcome.message}")
            images.append(None)
        else:
            for kind, message in _judged(outcome, annotations, index):
                findings.add(kind, annotations.place_of_image(index), message)
            images.append(outcome)
    return ImageScan(tuple(places), tuple(images))


def _outcomes(splits: Mapping[str, Annotations]) -> Iterator[ScannedImage | EntryError]:
    """The scan of every image in turn; several are decoded at once."""
    workers = min(MAX_THREADS, os.cpu_count() or 1)
    under_way: deque[Future[ScannedImage | EntryError]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for annotations in splits.values():
            for source in annotations.store.sources(annotations.images):
                under_way.append(pool.submit(_outcome, source))
                if len(under_way) > 2 * workers:
                    yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _outcome(source: Path | bytes) -> ScannedImage | EntryError:
    try:
        return scan_image(source)
    except ImageError as error:
        reason = error.reason_for(source)
        kind = Fault.PICTURE_TRUNCATED if "truncated" in reason.lower() else Fault.PICTURE_UNREADABLE
        return EntryError(kind, reason)


def scan_image(source: Path | bytes) -> ScannedImage:
    """Open and decode an image. Raises ImageError."""
    with open_image(source) as opened:
        name, (width, height), upright = opened.format or "", opened.size, upright_size(opened)
        orientation, frames, deep = orientation_of(opened), num_frames(opened), is_deep(opened)
    pixels = read_image(source)
    if isinstance(source, bytes):
        digest = hashlib.sha256(source).digest()
    else:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    return ScannedImage(name, (height, width), upright, orientation, digest, _fingerprint(pixels),
                        frames, deep and is_nearly_black(pixels))


def _fingerprint(pixels: np.ndarray) -> np.ndarray | None:
    """(256,) Whether the image gets lighter from left to right at each point of a coarse grid; None for a flat one."""
    image = PIL.Image.fromarray(pixels).convert("L").resize((GRID + 1, GRID), PIL.Image.Resampling.BOX)
    grey = np.asarray(image).astype(np.int16)
    return None if grey.std() < FLAT else (grey[:, 1:] > grey[:, :-1]).ravel()


def _judged(scanned: ScannedImage, annotations: Annotations, index: int) -> Iterator[tuple[Fault, str]]:
    """The faults of an image that can be read."""
    image = annotations.images[index]
    promised = FORMATS_OF_SUFFIX.get(PurePath(image.file_name).suffix.lower())
    if promised and scanned.format not in promised:
        yield Fault.PICTURE_MISLABELLED, f"{image.file_name} is a {scanned.format}"
    if scanned.num_frames > 1:
        yield Fault.PICTURE_FRAMES, f"the first of {scanned.num_frames} is read from {image.file_name}"
    if scanned.is_dark:
        yield Fault.PICTURE_DARK, f"{image.file_name}: its values are far below the white of their type"
    if image.size not in (scanned.stored, scanned.upright):
        yield Fault.PICTURE_SIZE, wrong_size(image, scanned.upright)
    elif scanned.orientation in UPRIGHT:
        meant = ("upright, as most viewers show it" if image.size == scanned.upright != scanned.stored else
                 "as it is stored, unlike most viewers" if image.size == scanned.stored != scanned.upright else
                 "either way, so it is taken as upright")
        yield Fault.PICTURE_ROTATED, f"EXIF rotates {image.file_name}; by their size the annotations mean it {meant}"


def wrong_size(image: ImageRecord, upright: ImageSize) -> str:
    """What is said about an image that has this size and not the annotated one."""
    return (f"expected {image.width} x {image.height} pixels, got {upright[1]} x {upright[0]} in "
            f"{image.file_name}")
