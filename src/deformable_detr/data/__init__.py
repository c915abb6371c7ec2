"""Files to ImageBatch and Target."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deformable_detr.data.annotations import Annotations
    from deformable_detr.data.augmentation import train_transform
    from deformable_detr.data.dataset import DetectionDataset, Sample, SampleKey
    from deformable_detr.data.findings import DataError, Findings
    from deformable_detr.data.folder import DataFolder
    from deformable_detr.data.formats.coco import read_annotations
    from deformable_detr.data.loader import build_loader
    from deformable_detr.data.picture_list import Picture
    from deformable_detr.data.transforms import PictureTransform, eval_transform, prepare_picture

__all__ = ["Annotations", "DataError", "DataFolder", "DetectionDataset", "Findings", "Picture", "PictureTransform",
           "Sample", "SampleKey", "build_loader", "eval_transform", "prepare_picture", "read_annotations",
           "train_transform"]

# torchvision takes seconds to import: each name is fetched at its first use.
_HOMES = {"Annotations": "annotations", "Picture": "picture_list", "DetectionDataset": "dataset", "Sample": "dataset",
          "SampleKey": "dataset", "DataError": "findings", "Findings": "findings", "DataFolder": "folder",
          "read_annotations": "formats.coco", "build_loader": "loader", "PictureTransform": "transforms",
          "eval_transform": "transforms", "prepare_picture": "transforms", "train_transform": "augmentation"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
