"""What a data set is, in one line: two runs on the same data have the same, and any change of the data changes it."""

import hashlib
import json

import numpy as np

from deformable_detr.datasets.annotations import Annotations


def fingerprint(annotations: Annotations) -> str:
    """Counts, and a digest of classes, images (names and sizes, not pixels) and objects."""
    images = annotations.images
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps([annotations.names, annotations.category_ids]).encode())
    for name in images.file_names():
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
    for whole in (images.ids, images.sizes, annotations.image_index, annotations.labels):
        digest.update(np.ascontiguousarray(whole, "<i8").tobytes())
    for real in (annotations.boxes, annotations.areas):
        digest.update(np.ascontiguousarray(real, "<f8").tobytes())
    digest.update(np.ascontiguousarray(annotations.crowd, "u1").tobytes())
    return f"{len(images)} images, {len(annotations.labels)} objects, {digest.hexdigest()}"
